//! Programs of the golden files, against what the reference embedded.

use rvf_bpf::{Form, Integrity, Program, ProgramError};
use rvf_format::{SegType, layout};
use std::path::{Path, PathBuf};

/// Type, attachment and largest dimension of the program of set 2.
const SET_2: (&str, &str, u16) = ("socket-filter", "cgroup-ingress", 384);

fn folders() -> [PathBuf; 2] {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../format/tests/golden/branch");
    [golden.join("set-1/compute"), golden.join("set-2/compute")]
}

fn payload(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).expect("golden file");
    let layout = layout::walk(&bytes);
    let segment = layout.segments().find(|segment| segment.kind() == SegType::EBPF).expect("program");
    segment.payload_of(&bytes).to_vec()
}

#[test]
fn programs_read_as_embedded() {
    for dir in folders() {
        let stored = std::fs::read(dir.join("prog.bin")).expect("program");
        let bytes = payload(&dir.join("ebpf.rvf"));
        let program = Program::parse(&bytes).expect("program");
        assert_eq!(program.program, stored);
        assert_eq!(program.integrity(), Integrity::Fold32);
        let text = std::fs::read_to_string(dir.join("expected.json")).expect("expected.json");
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let cases = json["cases"].as_array().expect("cases");
        let wanted = cases.iter().find(|case| case["file"] == "ebpf.rvf").expect("case");
        assert_eq!(wanted["btf"], program.btf.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        let names = (program.type_name(), program.attach_name(), program.max_dimension);
        let set_1 = dir.to_string_lossy().contains("set-1");
        assert_eq!(names, if set_1 { ("xdp-distance", "xdp-ingress", 384) } else { SET_2 });
        assert_eq!(program.form(), Form::Instructions);
        assert!(program.count_matches());

        // The CLI has numbers of its own: xdp reads as socket filter.
        let bytes = payload(&dir.join("cli.rvf"));
        let program = Program::parse(&bytes).expect("program");
        assert_eq!(program.program, stored);
        let names = (program.type_name(), program.type_name_by_cli());
        assert!([("socket-filter", Some("xdp")), ("tracepoint", Some("tc"))].contains(&names), "{names:?}");
        assert!(program.btf.is_empty());
    }
}

#[test]
fn damaged_programs_are_refused_or_reported() {
    let bytes = payload(&folders()[0].join("ebpf.rvf"));
    assert_eq!(Program::parse(&bytes[..63]), Err(ProgramError::Short { len: 63 }));
    let cut = Program::parse(&bytes[..bytes.len() - 1]).expect_err("a byte is missing");
    assert_eq!(cut, ProgramError::Size { declared: 120, found: 119 });
    let mut flipped = bytes.clone();
    flipped[70] ^= 1;
    assert_eq!(Program::parse(&flipped).expect("whole").integrity(), Integrity::Mismatch);
    let mut huge = bytes.clone();
    huge[0x10..0x18].fill(0xFF);
    assert!(matches!(Program::parse(&huge), Err(ProgramError::Size { declared: u64::MAX, .. })));
    for at in 0..64 {
        for value in [0, 1, 0x7F, 0x80, 0xFF] {
            let mut bytes = bytes.clone();
            bytes[at] = value;
            if let Ok(program) = Program::parse(&bytes) {
                program.integrity();
                program.form();
            }
        }
    }
}
