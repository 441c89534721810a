//! The arguments of an embedded kernel.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use rvf_kernel::vm::Firmware;

/// What `rvf-exec --help-of kernel` says.
pub const HELP: &str = "\
usage: ./kernel/NAME [OPTIONS]

Boots the kernel in a microVM (QEMU) whose only process serves the store: POST /query, GET /status, /health and /file, as
rvf serve does. 'listening on 127.0.0.1:PORT' on stdout says that it answers; SIGINT or SIGTERM ends it.

  --port N            port on 127.0.0.1; 0 takes a free one [default: 8080]
  --memory MIB        memory of the machine [default: 128 for a store of up to 16 MiB, else 256; or what the file asks for]
  --vcpus N           virtual processors [default: 1, or what the file asks for]
  --boot-timeout SEC  time until the guest answers [default: 60]
  --accel WHICH       kvm, tcg (emulated), or auto: kvm where a probe finds that it works [default: auto]
  --modules DIR       the kernel's modules: /lib/modules/RELEASE, or the same of an unpacked package
                      [default: /lib/modules/RELEASE where it is there, else none]
  --devices WHERE     acpi or cmdline: how the kernel is told of its devices [default: acpi with modules, else cmdline]
  --guest FILE        the guest program [default: rvf-guest beside this program, or in ../lib/rvf]
  --no-cache          boot anew, and keep nothing of it for the next time
";

/// Who is to execute the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accel {
    /// KVM where it works.
    Auto,
    /// KVM or nothing.
    Kvm,
    /// The emulator.
    Tcg,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Arguments {
    pub(super) port: u16,
    pub(super) memory_mb: Option<u32>,
    pub(super) vcpus: Option<u32>,
    pub(super) boot_time: Duration,
    pub(super) accel: Accel,
    pub(super) modules: Option<PathBuf>,
    pub(super) firmware: Option<Firmware>,
    pub(super) guest: Option<PathBuf>,
    pub(super) cached: bool,
}

impl Arguments {
    pub(super) fn parse(words: &[OsString]) -> Result<Self, String> {
        let mut this = Self {
            port: 8080,
            memory_mb: None,
            vcpus: None,
            boot_time: Duration::from_secs(60),
            accel: Accel::Auto,
            modules: None,
            firmware: None,
            guest: None,
            cached: true,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let text = word.to_str().unwrap_or("");
            let (name, inline) =
                text.split_once('=').map_or((text, None), |(n, v)| (n, Some(OsString::from(v))));
            if !name.starts_with("--") {
                return Err(format!(
                    "a kernel takes no argument {}; see rvf-exec --help-of kernel",
                    word.display()
                ));
            }
            if name == "--no-cache" && inline.is_none() {
                this.cached = false;
                continue;
            }
            let mut value = || -> Result<OsString, String> {
                inline
                    .clone()
                    .or_else(|| words.next().cloned())
                    .ok_or_else(|| format!("{name} needs a value"))
            };
            let number = |value: OsString, least: u64, most: u64| {
                let parsed = value.to_str().and_then(|text| text.parse::<u64>().ok());
                parsed.filter(|n| (least..=most).contains(n)).ok_or_else(|| {
                    format!("{name} is a number from {least} to {most}, not {}", value.display())
                })
            };
            match name {
                "--port" => this.port = number(value()?, 0, 65_535)? as u16,
                "--memory" => this.memory_mb = Some(number(value()?, 64, 16_384)? as u32),
                "--vcpus" => this.vcpus = Some(number(value()?, 1, 64)? as u32),
                "--boot-timeout" => this.boot_time = Duration::from_secs(number(value()?, 1, 3600)?),
                "--accel" => {
                    let value = value()?;
                    this.accel = match value.to_str() {
                        Some("auto") => Accel::Auto,
                        Some("kvm") => Accel::Kvm,
                        Some("tcg") => Accel::Tcg,
                        _ => return Err(format!("--accel is auto, kvm or tcg, not {}", value.display())),
                    }
                }
                "--devices" => {
                    let value = value()?;
                    this.firmware = Some(match value.to_str() {
                        Some("acpi") => Firmware::Acpi,
                        Some("cmdline") => Firmware::CommandLine,
                        _ => return Err(format!("--devices is acpi or cmdline, not {}", value.display())),
                    });
                }
                "--modules" => this.modules = Some(value()?.into()),
                "--guest" => this.guest = Some(value()?.into()),
                _ => return Err(format!("a kernel takes no option {name}; see rvf-exec --help-of kernel")),
            }
        }
        Ok(this)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Arguments, String> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        Arguments::parse(&words)
    }

    #[test]
    fn what_is_given_counts() {
        let got = parse(&[
            "--port=0",
            "--memory",
            "128",
            "--accel",
            "tcg",
            "--modules",
            "/m",
            "--no-cache",
            "--boot-timeout",
            "5",
        ]);
        let got = got.expect("good");
        assert!(!got.cached && parse(&[]).expect("good").cached);
        assert_eq!((got.port, got.memory_mb, got.accel), (0, Some(128), Accel::Tcg));
        assert_eq!((got.modules, got.boot_time), (Some("/m".into()), Duration::from_secs(5)));
        assert_eq!(parse(&[]).expect("good").port, 8080);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (words, said) in [
            (&["x"][..], "no argument x"),
            (&["--port"], "needs a value"),
            (&["--port", "70000"], "65535"),
            (&["--memory", "1"], "64"),
            (&["--vcpus", "0"], "1 to 64"),
            (&["--accel", "magic"], "auto, kvm or tcg"),
            (&["--devices", "usb"], "acpi or cmdline"),
            (&["--qemu-args", "x"], "no option --qemu-args"),
            (&["--bogus"], "no option --bogus"),
            (&["--boot-timeout", "0"], "1 to 3600"),
            (&["--no-cache=x"], "no option --no-cache"),
        ] {
            let error = parse(words).expect_err(said);
            assert!(error.contains(said), "{error}");
        }
    }
}
