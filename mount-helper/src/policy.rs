//! What a user and a machine allow to run: `policy.json` beside the directories of trusted keys.
//!
//! ```json
//! {
//!   "kinds": ["wasm"],
//!   "digests": ["sha3-256:5f3c..."],
//!   "max_bytes": 4194304,
//!   "allow_unsigned": false,
//!   "require_attestation": false
//! }
//! ```
//!
//! Every key may be left out and then forbids nothing. `kinds` lists what may run at all; `digests` the payloads or the
//! programs in them, as `rvf-exec --check` and `rvf embed-...` print them; `max_bytes` is for a program's payload. The files of
//! user and machine both count, so neither can allow what the other forbids. A file that cannot be read, that others could have
//! written, or with a key that is not known forbids everything.

use std::path::PathBuf;

use rvf_crypto::{sha3_256, trust};
use rvf_kernel::ExecKind;
use rvf_kernel::entry::parse_digest;
use serde_json::Value;

/// The machine's policy.
pub const SYSTEM: &str = "/etc/rvf/policy.json";

const NAME: &str = "policy.json";

/// One policy file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Where it lies.
    pub path: PathBuf,
    /// SHA3-256 of its text: what a kernel can be bound to.
    pub digest: [u8; 32],
    /// What may run; everything when not given.
    pub kinds: Option<Vec<ExecKind>>,
    /// SHA3-256 digests of what may run; everything when not given.
    pub digests: Option<Vec<[u8; 32]>>,
    /// Largest payload.
    pub max_bytes: Option<u64>,
    /// Whether `--allow-unsigned` is heeded.
    pub allow_unsigned: bool,
    /// Whether only attested programs may run.
    pub require_attestation: bool,
}

/// What a policy is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// Kind of program.
    pub kind: ExecKind,
    /// Bytes of its payload.
    pub bytes: u64,
    /// SHA3-256 of its payload.
    pub payload: [u8; 32],
    /// SHA3-256 of the image, object or module in it, where a policy [names digests](Policies::name_digests).
    pub program: Option<[u8; 32]>,
    /// Whether a trusted key signed it.
    pub signed: bool,
}

impl Policy {
    /// Reads a policy's text.
    ///
    /// # Errors
    /// What is wrong in it.
    pub fn parse(path: PathBuf, text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|e| format!("no JSON: {e}"))?;
        let Value::Object(object) = value else { return Err("not a JSON object".into()) };
        let mut policy = Self {
            path,
            digest: sha3_256(text.as_bytes()),
            kinds: None,
            digests: None,
            max_bytes: None,
            allow_unsigned: true,
            require_attestation: false,
        };
        for (key, value) in &object {
            let wrong = |what: &str| format!("'{key}' is not {what}");
            let flag = || value.as_bool().ok_or_else(|| wrong("true or false"));
            match key.as_str() {
                "kinds" => {
                    let read = |name: &str| ExecKind::from_name(name);
                    policy.kinds =
                        Some(strings(value, read).ok_or_else(|| wrong("a list of kernel, ebpf and wasm"))?);
                }
                "digests" => {
                    let list = strings(value, parse_digest);
                    policy.digests =
                        Some(list.ok_or_else(|| wrong("a list of sha3-256: and 64 hexadecimal digits"))?);
                }
                "max_bytes" => {
                    policy.max_bytes = Some(value.as_u64().ok_or_else(|| wrong("a number of bytes"))?);
                }
                "allow_unsigned" => policy.allow_unsigned = flag()?,
                "require_attestation" => policy.require_attestation = flag()?,
                _ => {
                    let known = "kinds, digests, max_bytes, allow_unsigned and require_attestation";
                    return Err(format!("'{}' is not known; keys are {known}", key.escape_default()));
                }
            }
        }
        Ok(policy)
    }

    /// Whether it allows this; otherwise why not.
    ///
    /// # Errors
    /// Which rule forbids it.
    pub fn judge(&self, asked: &Question) -> Result<(), String> {
        if self.kinds.as_ref().is_some_and(|kinds| !kinds.contains(&asked.kind)) {
            return Err(format!("programs of kind {} are not among its 'kinds'", asked.kind));
        }
        if self.max_bytes.is_some_and(|most| asked.bytes > most) {
            let most = self.max_bytes.unwrap_or_default();
            return Err(format!("the program has {} bytes, 'max_bytes' is {most}", asked.bytes));
        }
        let listed = |digests: &Vec<[u8; 32]>| {
            digests.contains(&asked.payload) || asked.program.is_some_and(|own| digests.contains(&own))
        };
        if self.digests.as_ref().is_some_and(|digests| !listed(digests)) {
            return Err("neither the program nor its payload is among its 'digests'".into());
        }
        if !self.allow_unsigned && !asked.signed {
            return Err("'allow_unsigned' is false".into());
        }
        if self.require_attestation {
            return Err(
                "'require_attestation' is true, and no quote can be verified here: attestation records \
                        of a file prove nothing by themselves"
                    .into(),
            );
        }
        Ok(())
    }
}

fn strings<T>(value: &Value, read: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    value.as_array()?.iter().map(|item| item.as_str().and_then(&read)).collect()
}

/// The policies in force.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    /// Those that can be read.
    pub found: Vec<Policy>,
    /// Those that cannot, and why: while there is one, nothing is allowed.
    pub unreadable: Vec<(PathBuf, String)>,
}

impl Policies {
    /// Where policies lie for this process: beside the directories of trusted keys.
    pub fn paths() -> Vec<PathBuf> {
        trust::TrustStore::directories().into_iter().map(|keys| keys.with_file_name(NAME)).collect()
    }

    /// Reads them. `owner` is the user besides root whose files count.
    pub fn load(paths: &[PathBuf], owner: u32) -> Self {
        let mut policies = Self::default();
        for path in paths {
            let read = trust::read_guarded(path, owner);
            match read.and_then(|text| text.map(|t| Policy::parse(path.clone(), &t)).transpose()) {
                Ok(Some(policy)) => policies.found.push(policy),
                Ok(None) => {}
                Err(reason) => policies.unreadable.push((path.clone(), reason)),
            }
        }
        policies
    }

    /// Whether one of them says which digests may run, so that it has to be asked about the program's own.
    pub fn name_digests(&self) -> bool {
        self.found.iter().any(|policy| policy.digests.is_some())
    }

    /// Whether all of them allow this.
    ///
    /// # Errors
    /// Which one does not, and why.
    pub fn judge(&self, asked: &Question) -> Result<(), String> {
        if let Some((path, reason)) = self.unreadable.first() {
            return Err(format!("{}: {reason}; nothing runs until that is mended", path.display()));
        }
        for policy in &self.found {
            policy.judge(asked).map_err(|reason| format!("{}: {reason}", policy.path.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Question {
        Question { kind: ExecKind::Wasm, bytes: 100, payload: [1; 32], program: Some([2; 32]), signed: true }
    }

    fn judge(text: &str, asked: &Question) -> Result<(), String> {
        Policy::parse("p.json".into(), text).and_then(|policy| policy.judge(asked))
    }

    #[test]
    fn every_rule_forbids_what_it_says() {
        let hex = |byte: &str| format!("sha3-256:{}", byte.repeat(32));
        let unsigned = Question { signed: false, ..asked() };
        assert_eq!(judge("{}", &unsigned), Ok(()));
        assert_eq!(judge(r#"{"kinds": ["wasm", "ebpf"]}"#, &asked()), Ok(()));
        assert!(judge(r#"{"kinds": ["kernel"]}"#, &asked()).is_err());
        assert!(judge(r#"{"kinds": []}"#, &asked()).is_err());
        assert_eq!(judge(r#"{"max_bytes": 100}"#, &asked()), Ok(()));
        assert!(judge(r#"{"max_bytes": 99}"#, &asked()).is_err());
        for digest in ["01", "02"] {
            assert_eq!(judge(&format!(r#"{{"digests": ["{}"]}}"#, hex(digest)), &asked()), Ok(()));
        }
        assert!(judge(&format!(r#"{{"digests": ["{}"]}}"#, hex("03")), &asked()).is_err());
        assert_eq!(judge(r#"{"allow_unsigned": false}"#, &asked()), Ok(()));
        assert!(judge(r#"{"allow_unsigned": false}"#, &unsigned).is_err());
        assert!(judge(r#"{"require_attestation": true}"#, &asked()).is_err());
    }

    #[test]
    fn a_text_that_is_not_understood_is_no_policy() {
        for text in [
            "",
            "[]",
            "{",
            r#"{"kinds": "wasm"}"#,
            r#"{"kinds": ["java"]}"#,
            r#"{"kinds": [1]}"#,
            r#"{"digests": ["01"]}"#,
            r#"{"max_bytes": -1}"#,
            r#"{"max_bytes": "1"}"#,
            r#"{"allow_unsigned": 0}"#,
            r#"{"require_attestation": null}"#,
            r#"{"allow_everything": true}"#,
        ] {
            assert!(Policy::parse("p.json".into(), text).is_err(), "{text}");
        }
    }
}
