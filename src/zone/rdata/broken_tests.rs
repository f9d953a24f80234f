use super::tests::read_text;

#[test]
fn broken_data_is_told_at_its_place_with_a_remedy() {
    let lines = include_str!("broken.tsv").lines().filter(|line| !line.starts_with('#'));
    for line in lines {
        let columns: Vec<&str> = line.split('\t').collect();
        let [text, place, message, help] = columns[..] else { panic!("four columns: {line}") };
        let fault = read_text(text).expect_err(text);
        let told = (&text[fault.span.clone()], fault.message.as_str(), fault.help.as_deref().unwrap_or_default());
        assert_eq!(told, (place, message, help), "{text}");
        assert!(!help.is_empty(), "{text}");
    }
}

#[test]
fn strings_and_data_have_their_longest() {
    for (text, message) in [
        (format!("TXT {}", "a".repeat(256)), "text: 256 bytes long; at most 255 fit into one string"),
        (format!("TXT {}", "a".repeat(255)), ""),
        (format!("CAA 0 issue {}", "a".repeat(65_528)), ""),
        (
            format!("CAA 0 issue {}", "a".repeat(65_529)),
            "the data is 65536 bytes long; at most 65535 fit into a record",
        ),
        (format!("NS {}", "a.".repeat(128)), "name: name is 257 bytes long in wire form; at most 255 are allowed"),
        (
            format!("NSEC3PARAM 1 0 0 {}", "ab".repeat(256)),
            "salt: `abababababababababababababababab…` is not hexadecimal of 1 to 255 bytes",
        ),
        (
            format!("SVCB 1 . key9999={}", "a".repeat(65_529)),
            "the data is 65536 bytes long; at most 65535 fit into a record",
        ),
        (format!("SVCB 1 . key9999={}", "a".repeat(65_536)), "a parameter is over 65535 bytes long"),
    ] {
        let told = read_text(&text).err().map(|fault| fault.message).unwrap_or_default();
        assert_eq!(told, message, "{}", &text[..20]);
    }
}
