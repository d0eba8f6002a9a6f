//! Variables that look like settings and are not read.

use super::unread_variables;

fn unread(names: &[&str]) -> Vec<String> {
    unread_variables(names.iter().map(Into::into))
}

#[test]
fn a_name_with_one_underscore_or_small_letters_is_named_with_the_one_that_was_meant() {
    assert_eq!(
        unread(&[
            "SEALPOST_LISTEN",
            "SEALPOST_LIMITS_STRIKES",
            "SEALPOST_QUEUE__PATH",
            "SEALPOST_X\n"
        ]),
        [
            "SEALPOST_LIMITS_STRIKES is not read: settings begin with SEALPOST__; did you mean SEALPOST__LIMITS__STRIKES?",
            "SEALPOST_LISTEN is not read: settings begin with SEALPOST__; did you mean SEALPOST__SERVER__LISTEN?",
            "SEALPOST_QUEUE__PATH is not read: settings begin with SEALPOST__; did you mean SEALPOST__QUEUE__PATH?",
            "SEALPOST_X\\n is not read: settings begin with SEALPOST__",
        ]
    );
    let small = unread(&["sealpost__limits__strikes"]);
    assert!(small[0].ends_with("did you mean SEALPOST__LIMITS__STRIKES?"), "{small:?}");
}

#[test]
fn names_of_others_and_names_that_are_read_are_not_mentioned() {
    assert!(
        unread(&["SEALPOST", "SEALPOSTED_X", "SEALPOST__LIMITS__STRIKES", "PATH", "é"]).is_empty()
    );
}

#[test]
fn what_kubernetes_sets_for_a_service_is_not_mentioned() {
    let of_service = [
        "SEALPOST_SERVICE_HOST",
        "SEALPOST_SERVICE_PORT",
        "SEALPOST_PORT",
        "SEALPOST_PORT_8080_TCP_ADDR",
        "SEALPOST_ADMIN_SERVICE_HOST",
        "SEALPOST_ADMIN_PORT",
    ];
    assert!(unread(&of_service).is_empty());
    // Without a service somebody meant a setting.
    assert_eq!(unread(&["SEALPOST_PORT"]).len(), 1);
}
