//! `[mqtt]` in the configuration.

use moed::config::Config;
use moed::transport::mqtt::{Broker, Protocol};

#[test]
fn the_table_says_everything_and_the_rest_has_defaults() {
    let config = Config::parse(
        r#"
        [requests]
        request_timeout_ms = 7000
        [mqtt]
        broker = "mqtts://broker.example"
        protocol = "5"
        node = "cellar"
        username = "moed"
        password_file = "/etc/moed/password"
        ca_file = "/etc/moed/ca.crt"
        keep_alive_s = 10
        reply_prefixes = ["replies/"]
        pool = "moed"
        admin = true
        home_assistant = true
        "#,
    );
    let settings = config.unwrap().mqtt.unwrap();
    let host = "broker.example".to_owned();
    assert_eq!(settings.broker, Broker::Network { host, port: 8883, is_tls: true });
    assert_eq!((settings.protocol, &*settings.node), (Protocol::V5, "cellar"));
    assert_eq!(settings.deadline_default.as_secs(), 7);
    assert_eq!(settings.discovery_prefix.as_deref(), Some("homeassistant"));
    assert!(settings.is_admin_allowed);
    let settings = Config::parse("[mqtt]\nbroker = \"localhost\"").unwrap().mqtt.unwrap();
    assert!(!settings.is_admin_allowed && settings.discovery_prefix.is_none());
    assert!(Config::parse("").unwrap().mqtt.is_none());
    let settings = Config::parse("[mqtt]\nbroker = \"unix:///run/x\"").unwrap().mqtt.unwrap();
    assert_eq!(settings.broker, Broker::Unix("/run/x".to_owned()));
    let settings = Config::parse("[mqtt]\nembedded = true").unwrap().mqtt.unwrap();
    assert_eq!(settings.embedded, Some("127.0.0.1:1883".parse().unwrap()));
    let host = "127.0.0.1".to_owned();
    assert_eq!(settings.broker, Broker::Network { host, port: 1883, is_tls: false });
}

#[test]
fn what_can_not_be_is_refused_by_its_place() {
    let mut texts = String::new();
    for lines in [
        "",
        "broker = \"http://x\"",
        "broker = \"unix://run/x\"",
        "broker = \"mqtt://me:secret@x\"",
        "broker = \"x\"\nprotocol = \"4\"",
        "broker = \"x\"\nnode = \"a/b\"",
        "broker = \"x\"\npassword = \"secret\"",
        "broker = \"x\"\npassword_file = \"/p\"",
        "broker = \"x\"\nkey_file = \"/k\"",
        "broker = \"x\"\nkeep_alive_s = 1",
        "broker = \"x\"\nusername = \"a\"\npassword_credential = \"../x\"",
        "broker = \"x\"\nreply_prefixes = [\"#\"]",
        "broker = \"unix:///x\"\nca_file = \"/ca\"",
        "broker = \"x\"\nembedded = true",
        "broker = \"x\"\nlisten = \"127.0.0.1:1883\"",
        "embedded = true\nlisten = \"localhost\"",
        "embedded = true\nlisten = \"0.0.0.0:1883\"",
    ] {
        let error = Config::parse(&format!("[mqtt]\n{lines}")).unwrap_err();
        texts += &format!("{error}\n");
    }
    assert!(!texts.contains("secret"), "{texts}");
    insta::assert_snapshot!(texts);
}
