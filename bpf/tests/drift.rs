//! The committed objects are what their sources say.

use std::path::Path;
use std::process::Command;

use object::Endianness;
use object::elf::FileHeader64;
use object::read::elf::{FileHeader as _, SectionHeader as _};
use rvf_bpf::{Builtin, ProgramOptions, ProgramPayload};

/// Names of the sections of an object, and how many instructions each has.
fn shape(object: &[u8]) -> Vec<(String, u64)> {
    let header = FileHeader64::<Endianness>::parse(object).expect("an object");
    let sections = header.sections(Endianness::Little, object).expect("sections");
    let name = |section| {
        let name = sections.section_name(Endianness::Little, section).expect("a name");
        String::from_utf8_lossy(name).into_owned()
    };
    let mut shape: Vec<_> = sections
        .iter()
        .map(|section| (name(section), section.sh_size(Endianness::Little) / 8))
        .filter(|(name, _)| {
            matches!(name.as_str(), "xdp" | "classifier" | "socket" | ".maps" | ".rodata" | "license")
        })
        .collect();
    shape.sort();
    shape
}

#[test]
fn the_objects_are_made_from_the_sources() {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
    let Ok(version) = Command::new("clang").arg("--version").output() else {
        assert!(
            std::env::var_os("RVF_REQUIRE_TOOLS").is_none(),
            "clang is missing, and RVF_REQUIRE_TOOLS is set"
        );
        eprintln!("SKIPPED: clang is missing (apt-get install clang llvm libbpf-dev)");
        return;
    };
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("programs");
    std::fs::create_dir_all(&out).expect("a directory");
    let built = Command::new("sh").arg(programs.join("build.sh")).arg(&out).output().expect("sh");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let used = String::from_utf8_lossy(&version.stdout);
    let used = used.lines().next().unwrap_or("");
    let recorded = std::fs::read_to_string(programs.join("BUILT_WITH")).expect("BUILT_WITH");
    let same_compiler = used == recorded.trim();
    if !same_compiler {
        eprintln!(
            "compiled with '{used}', committed with '{}': shapes are compared, not bytes",
            recorded.trim()
        );
    }
    for builtin in Builtin::ALL {
        let name = builtin.name();
        let object = std::fs::read(out.join(format!("{name}.o"))).expect("an object");
        let payload = ProgramPayload::new(&object, &ProgramOptions::default()).expect("a program");
        assert_eq!(payload.program_type, builtin.program_type());
        if same_compiler {
            assert!(
                object == builtin.object(),
                "{name}.o is not what {name}.c says: run sh bpf/programs/build.sh"
            );
        } else {
            let names = |object| shape(object).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
            assert_eq!(names(&object), names(builtin.object()), "{name}");
        }
    }
}
