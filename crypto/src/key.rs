//! Signing keys: Ed25519 (RFC 8032) and ML-DSA-65 (FIPS 204), as PEM files.
//!
//! Secret keys are PKCS#8 (`BEGIN PRIVATE KEY`), public keys SubjectPublicKeyInfo (`BEGIN PUBLIC KEY`), so other tools can
//! make and read them: `openssl genpkey -algorithm ed25519` does. An ML-DSA secret key is its 32-byte seed (RFC 9881).

use std::fmt;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ed25519_dalek::Signer as _;
use ml_dsa::{KeyExport as _, KeyInit as _, Keypair as _, MlDsa65};
use pkcs8::der::zeroize::Zeroizing;
use pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey, LineEnding};
use rvf_format::checksum::shake256_128;

use crate::file::{self, Unread};

/// How a signature is made. The numbers are those of the format's signature footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Ed25519: 64-byte signatures, checked strictly (no low-order keys, no malleable forms).
    Ed25519,
    /// ML-DSA-65, the post-quantum signature of FIPS 204: 3,309-byte signatures, made deterministically.
    MlDsa65,
}

impl Algorithm {
    /// The number in files.
    pub const fn code(self) -> u16 {
        match self {
            Self::Ed25519 => 0,
            Self::MlDsa65 => 1,
        }
    }

    /// The algorithm with this number.
    pub const fn from_code(code: u16) -> Option<Self> {
        match code {
            0 => Some(Self::Ed25519),
            1 => Some(Self::MlDsa65),
            _ => None,
        }
    }

    /// Its name in text.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::MlDsa65 => "ml-dsa-65",
        }
    }

    /// The algorithm with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Ed25519, Self::MlDsa65].into_iter().find(|a| a.name() == name)
    }

    /// Bytes of a signature.
    pub const fn signature_len(self) -> usize {
        match self {
            Self::Ed25519 => 64,
            Self::MlDsa65 => 3309,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Names a public key: SHAKE-256 of its bytes, 128 bits, as the format's signed page names keys.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 16]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The text is no PEM of a key that is known here.
    #[error("not {what}: {reason}; make one with rvf keygen, or openssl genpkey -algorithm ed25519")]
    Parse {
        /// What was wanted.
        what: &'static str,
        /// What the decoder says.
        reason: String,
    },
    /// The key could not be written as PEM.
    #[error("the key cannot be written as PEM: {0}")]
    Encode(String),
    /// The file of a secret key cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not fit to be a secret key.
    #[error("{}: {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why, and what mends it.
        what: String,
    },
    /// The system gave no randomness.
    #[error("no randomness from the system: {0}")]
    Random(getrandom::Error),
}

enum Secret {
    Ed25519(Box<ed25519_dalek::SigningKey>),
    MlDsa65(Box<ml_dsa::SigningKey<MlDsa65>>),
}

/// A key that signs. Its bytes are wiped when it is dropped, and never shown by `Debug`.
pub struct SecretKey(Secret);

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({}, {})", self.algorithm(), self.public().id())
    }
}

impl SecretKey {
    /// A new key from the system's randomness.
    ///
    /// # Errors
    /// [`KeyError::Random`] (environment).
    pub fn generate(algorithm: Algorithm) -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0u8; 32]);
        getrandom::fill(seed.as_mut_slice()).map_err(KeyError::Random)?;
        Ok(Self::from_seed(algorithm, &seed))
    }

    /// The key of a 32-byte seed, which is all there is to it in both algorithms.
    pub fn from_seed(algorithm: Algorithm, seed: &[u8; 32]) -> Self {
        Self(match algorithm {
            Algorithm::Ed25519 => Secret::Ed25519(Box::new(ed25519_dalek::SigningKey::from_bytes(seed))),
            Algorithm::MlDsa65 => Secret::MlDsa65(Box::new(ml_dsa::SigningKey::from_seed(&(*seed).into()))),
        })
    }

    /// Reads the PEM in a file that nobody else may read.
    ///
    /// # Errors
    /// [`KeyError::Io`] (environment), [`KeyError::File`] (caller, or policy where others may read it).
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        Self::read(file::open(path).map_err(|unread| Self::unread(path, unread))?, path)
    }

    /// The same of a file that was opened for reading; errors call it `path`.
    ///
    /// # Errors
    /// As [`SecretKey::load`].
    pub fn read(file: File, path: &Path) -> Result<Self, KeyError> {
        let secret = |meta: &std::fs::Metadata| match meta.mode() & 0o077 {
            0 => Ok(()),
            _ if path.extension().is_some_and(|end| end == "pub") => {
                Err("a public key, by its name; what signs is the secret one, in the file without .pub"
                    .into())
            }
            _ => {
                Err("a secret key that others may read; chmod 600 it, or make a new one if somebody has"
                    .into())
            }
        };
        let pem = file::read(file, secret).map_err(|unread| Self::unread(path, unread))?;
        Self::from_pem(&pem).map_err(|e| Self::unread(path, Unread::Unfit(e.to_string())))
    }

    fn unread(path: &Path, unread: Unread) -> KeyError {
        let path = path.to_path_buf();
        match unread {
            Unread::Io(source) => KeyError::Io { path, source },
            Unread::NotRegular => KeyError::File { path, what: "not a secret key file".into() },
            Unread::Unfit(what) => KeyError::File { path, what },
        }
    }

    /// Reads a PKCS#8 PEM.
    ///
    /// # Errors
    /// [`KeyError::Parse`] (caller): another kind of file or key.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let first = match ed25519_dalek::SigningKey::from_pkcs8_pem(pem) {
            Ok(key) => return Ok(Self(Secret::Ed25519(Box::new(key)))),
            Err(error) => error,
        };
        match ml_dsa::SigningKey::<MlDsa65>::from_pkcs8_pem(pem) {
            Ok(key) => Ok(Self(Secret::MlDsa65(Box::new(key)))),
            Err(_) => Err(KeyError::Parse {
                what: "a secret key (PKCS#8 PEM of Ed25519 or ML-DSA-65)",
                reason: first.to_string(),
            }),
        }
    }

    /// The key as PKCS#8 PEM.
    ///
    /// # Errors
    /// [`KeyError::Encode`].
    pub fn to_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        let pem = match &self.0 {
            // Without the public key beside it, which older readers of PKCS#8 refuse.
            Secret::Ed25519(key) => {
                ed25519_dalek::pkcs8::KeypairBytes { secret_key: key.to_bytes(), public_key: None }
                    .to_pkcs8_pem(LineEnding::LF)
            }
            Secret::MlDsa65(key) => key.to_pkcs8_pem(LineEnding::LF),
        };
        pem.map_err(|e| KeyError::Encode(e.to_string()))
    }

    /// How it signs.
    pub fn algorithm(&self) -> Algorithm {
        match &self.0 {
            Secret::Ed25519(_) => Algorithm::Ed25519,
            Secret::MlDsa65(_) => Algorithm::MlDsa65,
        }
    }

    /// The key that checks what this one signs.
    pub fn public(&self) -> PublicKey {
        PublicKey(match &self.0 {
            Secret::Ed25519(key) => Public::Ed25519(key.verifying_key()),
            Secret::MlDsa65(key) => Public::MlDsa65(Box::new(key.verifying_key())),
        })
    }

    /// Signs a message; the same message gives the same signature. [`Algorithm::signature_len`] bytes.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.0 {
            Secret::Ed25519(key) => key.sign(message).to_bytes().to_vec(),
            Secret::MlDsa65(key) => ml_dsa::Signer::sign(&**key, message).encode().to_vec(),
        }
    }
}

#[derive(Clone)]
enum Public {
    Ed25519(ed25519_dalek::VerifyingKey),
    MlDsa65(Box<ml_dsa::VerifyingKey<MlDsa65>>),
}

/// A key that checks signatures.
#[derive(Clone)]
pub struct PublicKey(Public);

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}, {})", self.algorithm(), self.id())
    }
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo PEM.
    ///
    /// # Errors
    /// [`KeyError::Parse`] (caller): another kind of file or key.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let first = match ed25519_dalek::VerifyingKey::from_public_key_pem(pem) {
            Ok(key) => return Ok(Self(Public::Ed25519(key))),
            Err(error) => error,
        };
        match ml_dsa::VerifyingKey::<MlDsa65>::from_public_key_pem(pem) {
            Ok(key) => Ok(Self(Public::MlDsa65(Box::new(key)))),
            Err(_) => Err(KeyError::Parse {
                what: "a public key (PEM of Ed25519 or ML-DSA-65)",
                reason: first.to_string(),
            }),
        }
    }

    /// The key of raw bytes: 32 of Ed25519, 1,952 of ML-DSA-65. `None` for other lengths and points off the curve.
    pub fn from_bytes(algorithm: Algorithm, bytes: &[u8]) -> Option<Self> {
        Some(Self(match algorithm {
            Algorithm::Ed25519 => {
                Public::Ed25519(ed25519_dalek::VerifyingKey::from_bytes(bytes.try_into().ok()?).ok()?)
            }
            Algorithm::MlDsa65 => {
                Public::MlDsa65(Box::new(ml_dsa::VerifyingKey::new_from_slice(bytes).ok()?))
            }
        }))
    }

    /// The key as PEM.
    ///
    /// # Errors
    /// [`KeyError::Encode`].
    pub fn to_pem(&self) -> Result<String, KeyError> {
        match &self.0 {
            Public::Ed25519(key) => key.to_public_key_pem(LineEnding::LF),
            Public::MlDsa65(key) => key.to_public_key_pem(LineEnding::LF),
        }
        .map_err(|e| KeyError::Encode(e.to_string()))
    }

    /// The raw bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        match &self.0 {
            Public::Ed25519(key) => key.to_bytes().to_vec(),
            Public::MlDsa65(key) => key.to_bytes().to_vec(),
        }
    }

    /// How its signatures are made.
    pub fn algorithm(&self) -> Algorithm {
        match &self.0 {
            Public::Ed25519(_) => Algorithm::Ed25519,
            Public::MlDsa65(_) => Algorithm::MlDsa65,
        }
    }

    /// Its name.
    pub fn id(&self) -> KeyId {
        KeyId(shake256_128(&self.to_bytes()))
    }

    /// Whether the holder of the secret key signed exactly this message.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.0 {
            Public::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
            Public::MlDsa65(key) => ml_dsa::Signature::<MlDsa65>::try_from(signature)
                .is_ok_and(|signature| ml_dsa::Verifier::verify(&**key, message, &signature).is_ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Algorithm; 2] = [Algorithm::Ed25519, Algorithm::MlDsa65];

    #[test]
    fn keys_survive_pem_and_check_what_they_signed_and_nothing_else() {
        for algorithm in BOTH {
            let key = SecretKey::generate(algorithm).unwrap();
            let again = SecretKey::from_pem(&key.to_pem().unwrap()).unwrap();
            let public = PublicKey::from_pem(&key.public().to_pem().unwrap()).unwrap();
            assert_eq!((again.algorithm(), public.algorithm()), (algorithm, algorithm));
            assert_eq!(again.public().id(), public.id());
            let signature = again.sign(b"message");
            assert_eq!(signature.len(), algorithm.signature_len());
            assert_eq!(signature, key.sign(b"message"), "signing is deterministic");
            assert!(public.verify(b"message", &signature));
            assert!(!public.verify(b"messagf", &signature));
            for at in [0, signature.len() / 2, signature.len() - 1] {
                let mut bad = signature.clone();
                bad[at] ^= 1;
                assert!(!public.verify(b"message", &bad), "{algorithm} byte {at}");
            }
            assert!(!public.verify(b"message", &signature[1..]));
            assert!(!public.verify(b"message", &[]));
            let other = SecretKey::generate(algorithm).unwrap().public();
            assert!(!other.verify(b"message", &signature));
            assert_ne!(other.id(), public.id());
            let raw = PublicKey::from_bytes(algorithm, &public.to_bytes()).unwrap();
            assert_eq!(raw.id(), public.id());
            assert!(PublicKey::from_bytes(algorithm, &public.to_bytes()[1..]).is_none());
        }
    }

    /// RFC 8032, 7.1, test 2: the library is used as the standard means it.
    #[test]
    fn ed25519_is_the_standards() {
        let seed = hex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
        let key = SecretKey::from_seed(Algorithm::Ed25519, &seed.try_into().unwrap());
        assert_eq!(
            key.public().to_bytes(),
            hex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
        );
        assert_eq!(
            key.sign(&[0x72]),
            hex("92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                 085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00")
        );
    }

    #[test]
    fn what_is_no_key_is_said() {
        for text in ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "\u{fffd}"] {
            assert!(SecretKey::from_pem(text).unwrap_err().to_string().starts_with("not a secret key"));
            assert!(PublicKey::from_pem(text).unwrap_err().to_string().starts_with("not a public key"));
        }
        let key = SecretKey::generate(Algorithm::Ed25519).unwrap();
        assert!(PublicKey::from_pem(&key.to_pem().unwrap()).is_err(), "a secret key is no public key");
        assert!(!format!("{key:?}").contains("PRIVATE"));
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
    }
}
