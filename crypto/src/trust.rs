//! The trust store: directories of public keys that this user or this machine relies on.
//!
//! Every regular file `NAME.pub` or `NAME.pem` in `$XDG_CONFIG_HOME/rvf/trust/` (else `~/.config/rvf/trust/`) and
//! `/etc/rvf/trust/` is one public key as PEM. Trust is taken back by removing the file. A directory or file that
//! somebody else could have written is not used: who can add keys can run programs.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::file::{self, Unread};
use crate::key::{KeyId, PublicKey};
use crate::signature::{Content, Signature};

/// The system's directory.
pub const SYSTEM: &str = "/etc/rvf/trust";

/// A key that is relied on.
#[derive(Clone, Debug)]
pub struct TrustedKey {
    /// The file's name without its ending.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// The key.
    pub key: PublicKey,
    /// Its id, worked out once: every signature that is judged asks for it.
    id: KeyId,
}

/// Why a file or directory of the trust store is not used.
#[derive(Debug)]
pub struct Unused {
    /// Which.
    pub path: PathBuf,
    /// Why, and what mends it.
    pub reason: String,
}

/// The keys relied on.
#[derive(Debug, Default)]
pub struct TrustStore {
    keys: Vec<TrustedKey>,
    unused: Vec<Unused>,
}

/// What a signature is worth to who trusts these keys.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Made by a trusted key about exactly these bytes, and in force.
    Valid {
        /// Name of the trusted key.
        by: String,
    },
    /// The key is not in the trust store, so nothing is known of it.
    Untrusted,
    /// The signature is not the key's, the bytes are not what was signed, or it is not in force.
    Invalid {
        /// Which.
        reason: &'static str,
    },
}

impl Verdict {
    /// In one word: `valid`, `untrusted` or `INVALID`.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Valid { .. } => "valid",
            Self::Untrusted => "untrusted",
            Self::Invalid { .. } => "INVALID",
        }
    }

    /// Whether it may be relied on.
    pub const fn is_valid(&self) -> bool {
        matches!(self, Self::Valid { .. })
    }
}

impl TrustStore {
    /// The directories that count for this process: the user's, then the system's.
    pub fn directories() -> Vec<PathBuf> {
        let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let config =
            absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
        config.map(|c| c.join("rvf/trust")).into_iter().chain([PathBuf::from(SYSTEM)]).collect()
    }

    /// Reads the keys of these directories. One that is not there holds none; what cannot be used is in
    /// [`TrustStore::unused`]. `owner` is the user besides root whose files count.
    pub fn load(directories: &[PathBuf], owner: u32) -> Self {
        let mut store = Self::default();
        for directory in directories {
            if let Err(reason) = store.add_directory(directory, owner) {
                store.unused.push(Unused { path: directory.clone(), reason });
            }
        }
        store
    }

    fn add_directory(&mut self, directory: &Path, owner: u32) -> Result<(), String> {
        let meta = match fs::metadata(directory) {
            Ok(meta) => meta,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e.to_string()),
        };
        if !meta.is_dir() {
            return Err("not a directory".into());
        }
        private(&meta, owner)?;
        let entries = fs::read_dir(directory).map_err(|e| e.to_string())?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            if !path.extension().is_some_and(|e| e == "pub" || e == "pem") {
                continue;
            }
            match key_file(&path, owner) {
                Ok(key) => {
                    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                    let id = key.id();
                    self.keys.push(TrustedKey { name, path, key, id });
                }
                Err(reason) => self.unused.push(Unused { path, reason }),
            }
        }
        Ok(())
    }

    /// The keys.
    pub fn keys(&self) -> &[TrustedKey] {
        &self.keys
    }

    /// Files and directories that were there and are not used.
    pub fn unused(&self) -> &[Unused] {
        &self.unused
    }

    /// The key with this id.
    pub fn find(&self, id: KeyId) -> Option<&TrustedKey> {
        self.keys.iter().find(|k| k.id == id)
    }

    /// What this signature is worth for `content`, found in the file with this id, at this time (ns since 1970).
    pub fn judge(&self, signature: &Signature, content: &Content, file_id: [u8; 16], now_ns: u64) -> Verdict {
        let Some(trusted) = self.find(signature.key) else { return Verdict::Untrusted };
        let statement = &signature.statement;
        let reason = if !signature.verify(&trusted.key) {
            "the signature is not this key's"
        } else if statement.scope.file_id().is_some_and(|id| id != file_id) {
            "it was signed for another file"
        } else if statement.until_ns != 0 && now_ns > statement.until_ns {
            "it has expired"
        } else if statement.content != *content {
            "the bytes are not those that were signed"
        } else {
            return Verdict::Valid { by: trusted.name.clone() };
        };
        Verdict::Invalid { reason }
    }

    /// The best verdict that any of these signatures gives for a segment's payload: one trusted key is enough, and only
    /// when there is none does it matter what is wrong with the others. `None` when none speaks of this payload.
    pub fn judge_segment<'s>(
        &self,
        signatures: impl IntoIterator<Item = &'s Signature>,
        kind: u8,
        payload: &Content,
        file_id: [u8; 16],
        now_ns: u64,
    ) -> Option<Verdict> {
        let mut best = None;
        for signature in signatures {
            let statement = &signature.statement;
            if statement.scope.kind() != Some(kind) || statement.content != *payload {
                continue;
            }
            match self.judge(signature, payload, file_id, now_ns) {
                valid @ Verdict::Valid { .. } => return Some(valid),
                invalid @ Verdict::Invalid { .. } => best = Some(invalid),
                Verdict::Untrusted => best = best.or(Some(Verdict::Untrusted)),
            }
        }
        best
    }
}

/// Refuses what others than root and `owner` may write.
fn private(meta: &fs::Metadata, owner: u32) -> Result<(), String> {
    if meta.uid() != 0 && meta.uid() != owner {
        return Err(format!("it belongs to user {}, so that user could add keys; chown it", meta.uid()));
    }
    if meta.mode() & 0o022 != 0 {
        return Err("others may write to it; chmod go-w".into());
    }
    Ok(())
}

fn key_file(path: &Path, owner: u32) -> Result<PublicKey, String> {
    let text = guarded(path, owner).map_err(said)?;
    PublicKey::from_pem(&text).map_err(|e| e.to_string())
}

fn guarded(path: &Path, owner: u32) -> Result<pkcs8::der::zeroize::Zeroizing<String>, Unread> {
    file::open(path).and_then(|file| file::read(file, |meta| private(meta, owner)))
}

fn said(unread: Unread) -> String {
    match unread {
        Unread::Io(error) => error.to_string(),
        Unread::NotRegular => "not a regular file".into(),
        Unread::Unfit(reason) => reason,
    }
}

/// The text of a file, up to 64 KiB, that nobody but root and `owner` could have written or put there; `None` when there is
/// no such file.
///
/// # Errors
/// Why it cannot be relied on or read, and what mends it.
pub fn read_guarded(path: &Path, owner: u32) -> Result<Option<String>, String> {
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match fs::metadata(directory) {
        Ok(meta) => private(&meta, owner).map_err(|reason| format!("{}: {reason}", directory.display()))?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(format!("{}: {e}", directory.display())),
    }
    match guarded(path, owner) {
        Ok(text) => Ok(Some(text.to_string())),
        Err(Unread::Io(e)) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(unread) => Err(said(unread)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Algorithm, SecretKey};
    use crate::signature::{Scope, Statement};
    use std::os::unix::fs::PermissionsExt;

    const FILE: [u8; 16] = [7; 16];
    const NOW: u64 = 2_000;

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("rvf-trust-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            Self(path)
        }

        fn put(&self, name: &str, text: &str) {
            let path = self.0.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        }

        fn load(&self) -> TrustStore {
            TrustStore::load(std::slice::from_ref(&self.0), fs::metadata(&self.0).unwrap().uid())
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn key(n: u8) -> SecretKey {
        SecretKey::from_seed(Algorithm::Ed25519, &[n; 32])
    }

    #[test]
    fn a_signature_is_worth_what_its_key_is() {
        let place = Place::new("worth");
        place.put("maker.pub", &key(1).public().to_pem().unwrap());
        let trust = place.load();
        let segment = Scope::SegmentOf { kind: 14, file_id: FILE };
        let good = Statement::of(segment, Content::of(b"kernel"), 1_000).sign(&key(1));
        let judged = |s: &Signature, bytes: &[u8], file| trust.judge(s, &Content::of(bytes), file, NOW);
        assert_eq!(judged(&good, b"kernel", FILE), Verdict::Valid { by: "maker".into() });
        assert_eq!(judged(&good, b"kernem", FILE).word(), "INVALID");
        assert_eq!(judged(&good, b"kernel", [8; 16]).word(), "INVALID");
        let mut old = Statement::of(segment, Content::of(b"kernel"), 1_000);
        old.until_ns = NOW - 1;
        assert_eq!(
            judged(&old.sign(&key(1)), b"kernel", FILE),
            Verdict::Invalid { reason: "it has expired" }
        );
        let stranger = Statement::of(segment, Content::of(b"kernel"), 1_000).sign(&key(2));
        assert_eq!(judged(&stranger, b"kernel", FILE), Verdict::Untrusted);
        // Somebody else's signature under the trusted key's name.
        let mut forged = stranger.encode();
        forged[96..112].copy_from_slice(&key(1).public().id().0);
        let forged = Signature::decode(&forged).unwrap();
        assert_eq!(judged(&forged, b"kernel", FILE).word(), "INVALID");
        let all = [stranger.clone(), forged, good];
        assert!(trust.judge_segment(&all, 14, &Content::of(b"kernel"), FILE, NOW).unwrap().is_valid());
        assert_eq!(
            trust.judge_segment(&all[..1], 14, &Content::of(b"kernel"), FILE, NOW),
            Some(Verdict::Untrusted)
        );
        assert_eq!(
            trust.judge_segment(&all, 15, &Content::of(b"kernel"), FILE, NOW),
            None,
            "another type of segment"
        );
        assert_eq!(trust.judge_segment(&all, 14, &Content::of(b"other"), FILE, NOW), None);
    }

    #[test]
    fn what_others_could_have_written_is_not_used() {
        let place = Place::new("writable");
        let pem = key(1).public().to_pem().unwrap();
        place.put("a.pub", &pem);
        place.put("b.pem", &pem);
        place.put("notes.txt", "no key");
        place.put("broken.pub", "no key");
        let secret = key(1).to_pem().unwrap();
        place.put("secret.pem", &secret);
        fs::create_dir(place.0.join("directory.pub")).unwrap();
        fs::set_permissions(place.0.join("b.pem"), fs::Permissions::from_mode(0o666)).unwrap();
        let trust = place.load();
        let names = |t: &TrustStore| t.keys().iter().map(|k| k.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&trust), ["a"]);
        let unused: Vec<_> = trust.unused().iter().map(|u| u.path.file_name().unwrap().to_owned()).collect();
        assert_eq!(unused, ["b.pem", "broken.pub", "directory.pub", "secret.pem"]);
        fs::set_permissions(&place.0, fs::Permissions::from_mode(0o777)).unwrap();
        let trust = place.load();
        assert!(trust.keys().is_empty() && trust.unused()[0].reason.contains("chmod go-w"));
        let stranger = TrustStore::load(std::slice::from_ref(&place.0), u32::MAX);
        assert_eq!(stranger.keys().len(), 0);
        assert!(TrustStore::load(&[place.0.join("nowhere")], 0).unused().is_empty());
    }
}
