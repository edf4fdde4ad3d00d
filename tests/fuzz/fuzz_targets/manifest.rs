//! Any text is read as a manifest and as a home, or refused; what passes can be asked.

#![no_main]

use libfuzzer_sys::fuzz_target;
use moed::bundle::Manifest;
use moed::pipeline::intent::{Home, Reading, Resolver, Sentence, Span, words};

fuzz_target!(|text: &str| {
    if let Ok(manifest) = Manifest::parse(text) {
        assert!(manifest.file(&manifest.model).is_some());
        assert!(manifest.files.iter().all(|file| !file.name.contains('/')));
    }
    let Ok(home) = Home::parse(text) else { return };
    // The home's own text is a sentence, too.
    let sentence = Sentence { words: words(text), text: text.to_owned() };
    let spans = vec![Span { slot: "name".to_owned(), words: (0, sentence.words.len()) }];
    let reading = Reading { intent: "HassTurnOn".to_owned(), confidence: 1.0, spans };
    let resolved = Resolver::new(&home).resolve(&sentence, &reading);
    let is_known = |id: &String| {
        let devices = home.devices.iter().map(|device| &device.named);
        devices.chain(&home.people).chain(&home.lists).any(|named| named.id == *id)
    };
    assert!(resolved.entities.iter().all(is_known));
});
