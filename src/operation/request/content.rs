//! What a request is about, however it is spelt: by this duplicates are told.

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{Kind, Request};
use crate::content::Content;

impl Request {
    /// What was asked for, without the PIN and however it is spelt: blanks around a value, a spreadsheet's lost leading
    /// zeros and the case of a currency or a country make no other wish. For telling duplicates, never for a request.
    ///
    /// `first` is the cardholder to be created before it.
    #[must_use]
    pub fn content(&self, first: Option<&Self>) -> Content {
        self.content_by(first, |value, add| add(value))
    }

    /// The content that it would have if each value had been read otherwise than it was.
    pub(crate) fn content_misread(
        &self,
        first: Option<&Self>,
        misread: &dyn Fn(&str) -> Zeroizing<String>,
    ) -> Content {
        self.content_by(first, |value, add| add(&misread(value)))
    }

    /// All that is asked for, without the names of it.
    pub(crate) fn values(&self) -> impl Iterator<Item = &str> {
        self.form.iter().map(|(_, value)| value)
    }

    /// Whether all that is asked for is in ASCII.
    pub(crate) fn is_ascii(&self) -> bool {
        self.form.iter().all(|(_, value)| value.is_ascii())
    }

    fn content_by(&self, first: Option<&Self>, read: impl Fn(&str, &mut dyn FnMut(&str))) -> Content {
        let mut digest = Sha256::new();
        for request in first.into_iter().chain([self]) {
            request.digest_content(&mut digest, &read);
        }
        let digest = digest.finalize();
        let mut content = [0; 16];
        content.copy_from_slice(&digest[..16]);
        Content(content)
    }

    fn digest_content(&self, digest: &mut Sha256, read: &impl Fn(&str, &mut dyn FnMut(&str))) {
        /// The codes of currencies have three letters, those of countries two.
        const CODE_LETTERS_MAX: usize = 3;
        digest.update(self.operation.word());
        for (path, value) in self.target().into_iter().chain(self.form.iter()) {
            // Of most values the case is as it is without a look at what they are.
            let bare = value.trim();
            let may_be_code =
                bare.len() <= CODE_LETTERS_MAX && bare.bytes().any(|letter| letter.is_ascii_uppercase());
            let kind = may_be_code.then(|| self.operation.declaration().kind_of(path).ok()).flatten();
            read(value, &mut |value| {
                let mut value = value.trim();
                if value.len() > 1 && value.bytes().all(|byte| byte.is_ascii_digit()) {
                    value = value.trim_start_matches('0');
                }
                digest.update((path.len() as u64).to_be_bytes());
                digest.update(path.as_bytes());
                digest.update((value.len() as u64).to_be_bytes());
                match kind {
                    Some(Kind::Currency | Kind::Country) => {
                        digest.update(value.to_ascii_lowercase().as_bytes());
                    }
                    _ => digest.update(value.as_bytes()),
                }
            });
        }
    }
}
