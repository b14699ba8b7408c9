//! Promise: the searches by which other tests say that no secret is anywhere find one in every form that programs print
//! bytes in, and wherever it begins.

use crate::support;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use support::secrets::{Secrets, spelled_forms};

#[test]
fn a_secret_is_found_in_every_form_and_at_every_place() {
    let secret = "TellingSecretOf-some_LengthThatNobodyMayRead4711TellingSecret";
    let mut secrets = Secrets::default();
    secrets.add_text(secret);
    for before in ["", "a", "ab", "abc"] {
        let message = format!("{before}{secret} and more");
        let bytes = message.as_bytes();
        let mut forms = spelled_forms(bytes);
        forms.extend([format!("{bytes:?}"), STANDARD.encode(bytes), URL_SAFE_NO_PAD.encode(bytes)]);
        for form in forms {
            assert!(secrets.found_in(form.as_bytes()).is_some(), "{form}");
        }
        let others = format!("{before}another text, of about the same length as the secret has, or longer");
        for form in spelled_forms(others.as_bytes()) {
            assert_eq!(secrets.found_in(form.as_bytes()), None);
        }
    }
}
