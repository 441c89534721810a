//! Programs that we embed: what the reference extracts, also after more commits by either side.

use rvf_bpf::{Program, ProgramOptions, ProgramPayload, ProgramType};
use rvf_cow::{Embedding, Error, Metric, NoProgress, Store};
use rvf_format::SegType;
use rvf_kernel::{Arch, Kernel, KernelOptions, KernelPayload, WasmOptions, WasmPayload};
use rvf_tests::model::{Fate, Model};
use rvf_tests::place::Place;
use rvf_tests::random::Random;

use crate::oracle::{both_agree, create, ingest, queries, rows};
use crate::reference;

const CMDLINE: &str = "console=ttyS0 quiet";

/// An image that no byte of which is the same in another: extracted bytes tell which it was.
fn image(seed: u64) -> Vec<u8> {
    (0..5000_u64).map(|at| (at.wrapping_mul(at).wrapping_add(seed * 77) >> 3) as u8).collect()
}

fn embed_kernel(store: &Store, image: &[u8]) -> u64 {
    let options = KernelOptions {
        arch: Some(Arch::X86_64),
        cmdline: CMDLINE.into(),
        api_port: 9000,
        ..KernelOptions::default()
    };
    let payload = KernelPayload::new(image, &options).expect("a kernel");
    let program =
        Embedding { kind: SegType::KERNEL, payload: &payload.pieces(), digest: payload.digest, name: None };
    store.embed(&program).expect("embedded").segment_id
}

/// Checks that the reference extracts this kernel, and takes image and command line from where its launcher does.
fn extracts(path: &std::path::Path, image: &[u8]) {
    let (header, rest) =
        reference::open_strict(path).extract_kernel().expect("readable").expect("there is a kernel");
    assert_eq!(rest[..image.len()], *image);
    assert_eq!(&rest[image.len()..], CMDLINE.as_bytes());
    let whole = [header, rest].concat();
    let kernel = Kernel::parse(&whole).expect("whole");
    assert_eq!((kernel.header.arch_name(), kernel.header.api_port), ("x86_64", 9000));
}

#[test]
fn the_reference_extracts_the_newest_of_what_we_embed() {
    let place = Place::in_memory().expect("a place");
    let path = place.join("ours.rvf");
    let mut random = Random::new(4);
    let asked = queries(&mut random, 3, 5);
    let mut model = Model::new(5, Metric::L2);
    let store = create(&path, 5, Metric::L2);
    let some = rows(&mut random, 1, 20, 5);
    ingest(&store, &some);
    model.ingest(&some, Fate::Replace);

    let (first, second) = (image(1), image(2));
    let earlier = embed_kernel(&store, &first);
    extracts(&path, &first);
    assert!(embed_kernel(&store, &second) > earlier);
    extracts(&path, &second);

    let code = [0xB7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
    let options = ProgramOptions { program_type: Some(ProgramType::TcEgress), max_dimension: 5 };
    let payload = ProgramPayload::new(&code, &options).expect("a program");
    let program =
        Embedding { kind: SegType::EBPF, payload: &payload.pieces(), digest: payload.digest, name: None };
    store.embed(&program).expect("embedded");

    let module = b"\0asm\x01\0\0\0";
    let payload = WasmPayload::new(module, &WasmOptions::default()).expect("a module");
    let program =
        Embedding { kind: SegType::WASM, payload: &payload.pieces(), digest: payload.digest, name: None };
    store.embed(&program).expect("embedded");

    let programs = || {
        let reader = reference::open_strict(&path);
        let (header, rest) = reader.extract_ebpf().expect("readable").expect("a program");
        assert_eq!(rest, code);
        let whole = [header, rest].concat();
        let program = Program::parse(&whole).expect("whole");
        assert_eq!((program.type_name(), program.attach_name()), ("tc-filter", "tc-egress"));
        let (_, rest) = reader.extract_wasm().expect("readable").expect("a module");
        assert_eq!(rest, module);
    };
    programs();
    both_agree(&model, &path, &asked);

    // A commit of ours, one of the reference, and a compaction of ours leave the order as it is.
    store.delete(&[3]).expect("deleted");
    model.delete(&[3]);
    extracts(&path, &second);
    let mut theirs = reference::open(&path);
    theirs.delete(&[4]).expect("the reference deletes");
    theirs.close().expect("closed");
    model.delete(&[4]);
    extracts(&path, &second);
    store.refresh().expect("fresh");
    store.compact(&NoProgress).expect("compacted");
    model.compact();
    extracts(&path, &second);
    programs();
    both_agree(&model, &path, &asked);
    let view = store.view();
    let kept = view.opened().layout.segments().filter(|s| s.kind() == SegType::KERNEL).count();
    assert_eq!(kept, 2, "the earlier kernel is kept");

    let vectors = Embedding { kind: SegType::VEC, payload: &[b"x"], digest: [0; 32], name: None };
    assert!(matches!(store.embed(&vectors), Err(Error::Invalid { .. })));
    store.freeze().expect("frozen");
    let payload = WasmPayload::new(module, &WasmOptions::default()).expect("a module");
    let late =
        Embedding { kind: SegType::WASM, payload: &payload.pieces(), digest: payload.digest, name: None };
    assert!(matches!(store.embed(&late), Err(Error::Frozen { .. })));
}
