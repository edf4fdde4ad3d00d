//! What people say at home, in our words, with what they mean; and the slips of their fingers.

/// A sentence, and the intent that it is meant as, in Home Assistant's words.
pub struct Sentence {
    pub text: &'static str,
    pub intent: &'static str,
}

const fn says(text: &'static str, intent: &'static str) -> Sentence {
    Sentence { text, intent }
}

/// None of them was used to train or to choose the model.
pub const SENTENCES: [Sentence; 40] = [
    says("turn on the lamp next to the sofa", "HassTurnOn"),
    says("switch off the heater in the bathroom", "HassTurnOff"),
    says("could you turn the hallway light on please", "HassTurnOn"),
    says("kill the lights in the bedroom", "HassTurnOff"),
    says("open the blinds in the office", "HassTurnOn"),
    says("close the garage door", "HassTurnOff"),
    says("lock the back door", "HassTurnOn"),
    says("dim the living room lights to thirty percent", "HassLightSet"),
    says("make the desk lamp blue", "HassLightSet"),
    says("set the kitchen to full brightness", "HassLightSet"),
    says("set the shutter in the nursery to 40 percent", "HassSetPosition"),
    says("set the thermostat to 21 degrees", "HassClimateSetTemperature"),
    says("make it 19 degrees in the bedroom", "HassClimateSetTemperature"),
    says("how warm is it in the living room", "HassClimateGetTemperature"),
    says("is the garage door open", "HassGetState"),
    says("are any lights on upstairs", "HassGetState"),
    says("what is the weather going to be like", "HassGetWeather"),
    says("set a timer for twelve minutes", "HassStartTimer"),
    says("start a pasta timer for 9 minutes", "HassStartTimer"),
    says("how much time is left on my timer", "HassTimerStatus"),
    says("cancel the pizza timer", "HassCancelTimer"),
    says("add two minutes to the egg timer", "HassIncreaseTimer"),
    says("pause the timer", "HassPauseTimer"),
    says("put oat milk on the shopping list", "HassShoppingListAddItem"),
    says("add call the dentist to my to do list", "HassListAddItem"),
    says("pause the music", "HassMediaPause"),
    says("next song please", "HassMediaNext"),
    says("turn the volume up a bit", "HassSetVolumeRelative"),
    says("set the volume to 25 percent", "HassSetVolume"),
    says("play something by Nina Simone", "HassMediaSearchAndPlay"),
    says("start the vacuum", "HassVacuumStart"),
    says("send the robot back to its dock", "HassVacuumReturnToBase"),
    says("mow the lawn", "HassLawnMowerStartMowing"),
    says("set the bedroom fan to half speed", "HassFanSetSpeed"),
    says("what time is it", "HassGetCurrentTime"),
    says("what day is it today", "HassGetCurrentDate"),
    says("tell everyone that dinner is ready", "HassBroadcast"),
    says("never mind", "HassNevermind"),
    says("book me a flight to Lisbon for Friday", "out_of_scope"),
    says("who won the cup final in 1987", "out_of_scope"),
];

/// A small generator of numbers that look random (xorshift64*).
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).unwrap_or(0).checked_rem(n).unwrap_or(0)
    }
}

/// One slip in a word of at least four letters: two letters swapped, one left out or doubled.
pub fn misspell(text: &str, numbers: &mut Numbers) -> String {
    let mut words: Vec<Vec<char>> = text.split(' ').map(|word| word.chars().collect()).collect();
    let long: Vec<usize> = (0..words.len())
        .filter(|&i| {
            words
                .get(i)
                .is_some_and(|word| word.len() >= 4 && word.iter().all(|c| c.is_alphabetic()))
        })
        .collect();
    let chosen = long.get(numbers.below(long.len())).and_then(|&i| words.get_mut(i));
    if let Some(word) = chosen {
        let at = 1 + numbers.below(word.len() - 2);
        match numbers.below(3) {
            0 => word.swap(at, at + 1),
            1 => drop(word.remove(at)),
            _ => word.insert(at, word.get(at).copied().unwrap_or('e')),
        }
    }
    let words: Vec<String> = words.into_iter().map(|word| word.into_iter().collect()).collect();
    words.join(" ")
}
