//! Topics: what is asked for where, and where replies may go.

use moed::transport::mqtt::parts::{Route, Topics};
use moed::transport::mqtt::{Broker, Settings, SettingsError, Tls};
use proptest::prelude::*;

fn settings() -> Settings {
    Settings {
        node: "hub".to_owned(),
        pool: Some("moed".to_owned()),
        is_admin_allowed: true,
        discovery_prefix: Some("homeassistant".to_owned()),
        ..Settings::default()
    }
}

#[test]
fn a_topic_says_what_is_asked_for() {
    let topics = Topics::new(&settings());
    let infer = |model: &str, version: Option<&str>, client: Option<&str>, reply: &str| {
        Some(Route::Infer {
            model: model.to_owned(),
            version: version.map(str::to_owned),
            client: client.map(str::to_owned),
            reply: reply.to_owned(),
        })
    };
    let admin = |verb: &str, reply: &str| {
        Some(Route::Admin { verb: verb.to_owned(), reply: reply.to_owned() })
    };
    for (topic, expected) in [
        ("moed/hub/models/a/infer", infer("a", None, None, "moed/hub/models/a/result")),
        ("moed/hub/models/a/infer/me", {
            infer("a", None, Some("me"), "moed/hub/models/a/result/me")
        }),
        ("moed/hub/models/a/versions/1.0.0/infer", {
            infer("a", Some("1.0.0"), None, "moed/hub/models/a/result")
        }),
        ("moed/hub/models/a/versions/1.0.0/infer/me", {
            infer("a", Some("1.0.0"), Some("me"), "moed/hub/models/a/result/me")
        }),
        ("moed/pool/models/a/infer/me", {
            infer("a", None, Some("me"), "moed/pool/models/a/result/me")
        }),
        ("moed/hub/request/load", admin("load", "moed/hub/response/load")),
        ("homeassistant/status", Some(Route::HomeAssistant)),
        ("homeassistant/statusx", None),
        ("moed/other/models/a/infer", None),
        ("moed/hub/models/a/result", None),
        ("moed/hub/models//infer", None),
        ("moed/hub/models/a b/infer", None),
        ("moed/hub/models/a/infer/me/too", None),
        ("moed/pool/request/load", None),
        ("moed/pool/models/a/versions/1/infer", None),
        ("moedx/hub/models/a/infer", None),
        ("moed", None),
        ("", None),
    ] {
        assert_eq!(topics.route(topic), expected, "{topic}");
    }
}

#[test]
fn nothing_is_listened_to_that_was_not_asked_for() {
    let filters = |settings: &Settings| {
        let topics = Topics::new(settings);
        topics.filters().into_iter().map(|filter| filter.path).collect::<Vec<_>>()
    };
    let own = [
        "moed/hub/models/+/infer",
        "moed/hub/models/+/infer/+",
        "moed/hub/models/+/versions/+/infer",
        "moed/hub/models/+/versions/+/infer/+",
    ];
    assert_eq!(filters(&Settings::default()), own);
    let more = [
        "moed/hub/request/+",
        "homeassistant/status",
        "$share/moed/moed/pool/models/+/infer",
        "$share/moed/moed/pool/models/+/infer/+",
    ];
    assert_eq!(filters(&settings()), [own, more].concat());
    let topics = Topics::new(&Settings::default());
    assert_eq!(topics.route("moed/hub/request/load"), None);
    assert_eq!(topics.route("moed/pool/models/a/infer"), None);
}

#[test]
fn replies_go_only_where_they_may() {
    let topics = Topics::new(&settings());
    for allowed in [
        "replies/a",
        "a",
        "moed/reply/me",
        "moed/hub/models/a/result/me",
        "moed/other/models/a/result",
        "moedx/hub/request/load",
        "homeassistant2/x",
        "/leading/slash",
    ] {
        assert_eq!(topics.check_reply(allowed), Ok(()), "{allowed}");
    }
    let long = "x".repeat(257);
    for refused in [
        "",
        "+",
        "a/+/b",
        "#",
        "a/#",
        "$SYS/a",
        "$share/g/a",
        "a\0b",
        "a\nb",
        &long,
        "moed",
        "moed/hub/status",
        "moed/hub/info",
        "moed/hub/models/a/infer",
        "moed/hub/models/a/infer/me",
        "moed/other/models/a/infer",
        "moed/hub/request/load",
        "moed/hub/response/load",
        "moed/pool/models/a/infer",
        "moed/reply",
        "moed/hub/models/result/infer",
        "moed/hub/models/a/versions/1/infer",
        "homeassistant/device/x/config",
        "homeassistant/status",
    ] {
        assert!(topics.check_reply(refused).is_err(), "{refused}");
    }
    let prefixes = vec!["replies/".to_owned()];
    let topics = Topics::new(&Settings { reply_prefixes: prefixes, ..settings() });
    assert_eq!(topics.check_reply("replies/a"), Ok(()));
    assert!(topics.check_reply("zigbee2mqtt/light/set").is_err());
}

proptest! {
    #[test]
    fn no_topic_that_asks_for_something_may_be_replied_to(topic in "[a-z/$+#. ]{0,40}|(moed|homeassistant)(/(hub|pool|models|infer|request|versions|a)){0,6}") {
        let topics = Topics::new(&settings());
        if topics.route(&topic).is_some() {
            prop_assert!(topics.check_reply(&topic).is_err());
        }
    }

    #[test]
    fn where_replies_go_by_themselves_they_may_go(model in "[a-z0-9_.-]{1,64}", client in "[a-z0-9]{1,64}") {
        let topics = Topics::new(&settings());
        for topic in [
            format!("moed/hub/models/{model}/infer/{client}"),
            format!("moed/pool/models/{model}/infer"),
        ] {
            let Some(Route::Infer { reply, .. }) = topics.route(&topic) else {
                panic!("{topic}: asks for something");
            };
            prop_assert_eq!(topics.check_reply(&reply), Ok(()));
        }
    }
}

#[test]
fn a_broker_is_given_by_its_address_and_without_a_password() {
    let broker = |host: &str, port, is_tls| Broker::Network { host: host.to_owned(), port, is_tls };
    for (text, expected) in [
        ("mqtt://localhost", broker("localhost", 1883, false)),
        ("mqtts://broker.example", broker("broker.example", 8883, true)),
        ("mqtt://10.0.0.1:1884/", broker("10.0.0.1", 1884, false)),
        ("hub.local", broker("hub.local", 1883, false)),
        ("mqtt://[::1]:1885", broker("[::1]", 1885, false)),
        ("mqtt://[::1]", broker("[::1]", 1883, false)),
        ("unix:///run/mosquitto.sock", Broker::Unix("/run/mosquitto.sock".to_owned())),
    ] {
        assert_eq!(text.parse(), Ok(expected), "{text}");
    }
    for text in [
        "",
        "mqtt://",
        "http://x",
        "mqtt://x:y",
        "mqtt://x:0",
        "mqtt://x/y",
        "mqtt://a b",
        "x:99999",
        "unix://run/mosquitto.sock",
        "unix://",
        "unix:///run/\n",
        &format!("unix:///{}", "a".repeat(107)),
    ] {
        assert!(text.parse::<Broker>().is_err(), "{text}");
    }
    let error = "mqtt://me:secret@x".parse::<Broker>().unwrap_err().to_string();
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn settings_that_can_not_be_are_refused() {
    let setting = |error: SettingsError| match error {
        SettingsError::Value { setting, .. } | SettingsError::Alone { setting, .. } => setting,
    };
    assert_eq!(settings().check(), Ok(()));
    let wrong = [
        ("node", Settings { node: "a/b".to_owned(), ..settings() }),
        ("node", Settings { node: "pool".to_owned(), ..settings() }),
        ("base", Settings { base: "/moed".to_owned(), ..settings() }),
        ("pool", Settings { pool: Some("+".to_owned()), ..settings() }),
        ("reply_prefixes", Settings { reply_prefixes: vec!["#".to_owned()], ..settings() }),
        ("keep_alive", Settings { keep_alive: std::time::Duration::from_secs(4), ..settings() }),
        ("packet_bytes_max", Settings { packet_bytes_max: 1, ..settings() }),
        ("requests_max", Settings { requests_max: 0, ..settings() }),
        ("password_file", Settings { password_file: Some("/x".into()), ..settings() }),
        ("key_file", {
            let tls = Tls { key_file: Some("/x".into()), ..Tls::default() };
            Settings { tls, ..settings() }
        }),
        ("broker", {
            let tls = Tls { ca_file: Some("/x".into()), ..Tls::default() };
            Settings { tls, ..settings() }
        }),
    ];
    for (expected, settings) in wrong {
        assert_eq!(settings.check().map_err(setting), Err(expected));
    }
}
