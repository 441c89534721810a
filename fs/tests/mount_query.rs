//! `query/`: every request form, sessions, transactions on one descriptor, the ioctl, errors.

mod mounted;

use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use mounted::{DIM, Mounted, errno, npy, open_store, run_ok};

fn printed(output: &std::process::Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("text")
}

fn raw(vector: [f32; DIM]) -> Vec<u8> {
    vector.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Nearest ids of `[x, 1, 0, 0]` among `[i, 1, 0, 0]`, id 10 * i.
const NEAR_2: &str = "20\t0.0\n10\t1.0\n30\t1.0\n";

#[test]
fn every_form_of_a_request_gives_the_same_answer() {
    need_fuse!();
    let m = Mounted::new(50);
    m.write("query/k", "3\n").expect("a default");
    let forms: [Vec<u8>; 8] = [
        b"2,1,0,0\n".to_vec(),
        b"2 1 0 0".to_vec(),
        b"[2, 1, 0, 0]\n".to_vec(),
        b"{\"vector\": [2, 1, 0, 0]}\n".to_vec(),
        b"{\"id\": 20}".to_vec(),
        npy(&[[2.0, 1.0, 0.0, 0.0]]),
        raw([2.0, 1.0, 0.0, 0.0]),
        b"{\"vectors\": [[2, 1, 0, 0]], \"exact\": true, \"k\": 3}".to_vec(),
    ];
    for form in forms {
        m.write("query/in", &form)
            .unwrap_or_else(|error| panic!("{}: {error}", String::from_utf8_lossy(&form)));
        assert_eq!(m.read("query/out"), NEAR_2, "{}", String::from_utf8_lossy(&form));
        assert_eq!(m.read("query/error"), "");
    }
}

#[test]
fn a_shell_needs_no_wait_and_sees_errors() {
    need_fuse!();
    let m = Mounted::new(50);
    assert!(m.sh_ok("echo '2,1,0,0' > query/in && cat query/out").starts_with("20\t0.0\n"));
    assert!(m.sh_ok("cat vectors/20 > query/in && cat query/out").starts_with("20\t0.0\n"));
    for wrong in [
        "2,1,0",
        "2,1,0,0,0",
        "nan,1,0,0",
        "inf 1 0 0",
        "{\"vector\": [1,2,3]}",
        "{\"k\": 3}",
        "one two three four",
    ] {
        let output = m.sh(&format!("echo '{wrong}' > query/in"));
        assert!(!output.status.success(), "{wrong}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("Invalid argument"), "{wrong}");
        assert!(!m.read("query/error").is_empty(), "{wrong}");
    }
    assert_eq!(m.sh_ok("echo '2,1,0,0' > query/in; cat query/error"), "", "the last request was fine");
}

#[test]
fn incomplete_requests_are_refused_at_close() {
    need_fuse!();
    let m = Mounted::new(50);
    for wrong in
        [&b"{\"vector\": [1, 2"[..], b"1,2", &npy(&[[1.0; 4]])[..140], &raw([1.0; 4])[..10], b"\x93NUM"]
    {
        assert_eq!(errno(m.write("query/in", wrong)), libc::EINVAL, "{wrong:?}");
    }
    // A header that promises more than there is.
    let mut lies = rvf_fs::data::npy::write_header(rvf_fs::data::npy::Dtype::F32, &[1_000_000_000, DIM]);
    lies.extend(raw([1.0; 4]));
    assert!(matches!(errno(m.write("query/in", &lies)), libc::EINVAL | libc::EFBIG));
    let mut lies = rvf_fs::data::npy::write_header(rvf_fs::data::npy::Dtype::F32, &[2, DIM]);
    lies.extend(raw([1.0; 4]));
    assert_eq!(errno(m.write("query/in", &lies)), libc::EINVAL);
    assert_eq!(m.read("query/out"), "");
}

#[test]
fn several_queries_in_one_request() {
    need_fuse!();
    let m = Mounted::new(50);
    m.write("query/k", "2").expect("a default");
    let want = "20\t0.0\n10\t1.0\n\n30\t0.0\n20\t1.0\n";
    for form in [
        b"2,1,0,0\n3,1,0,0\n".to_vec(),
        b"[[2,1,0,0],[3,1,0,0]]".to_vec(),
        npy(&[[2., 1., 0., 0.], [3., 1., 0., 0.]]),
    ] {
        m.write("query/in", form).expect("a request");
        assert_eq!(m.read("query/out"), want);
    }
    let ids = m.bytes("query/out.ids.npy");
    let ids = rvf_fs::data::npy::Npy::parse(&ids).expect("NumPy");
    assert_eq!(ids.shape(), [2, 2]);
    let distances = m.bytes("query/out.distances.npy");
    let (_, distances) = rvf_fs::data::npy::Npy::parse(&distances).expect("NumPy").to_f32(2).expect("floats");
    assert_eq!(distances, [0.0, 1.0, 0.0, 1.0]);
    // Written in pieces, as shells and cp do.
    let mut file = fs::File::options().write(true).open(m.path("query/in")).expect("opens");
    for line in ["2,1,0,0\n", "3,1,0,0\n", "4,1,0,0\n"] {
        file.write_all(line.as_bytes()).expect("a piece");
    }
    mounted::close(file).expect("closes");
    assert_eq!(m.read("query/out"), format!("{want}\n40\t0.0\n30\t1.0\n"));
}

#[test]
fn a_large_batch_is_whole_however_it_is_written() {
    need_fuse!();
    let m = Mounted::new(200);
    m.write("query/k", "1").expect("a default");
    let queries: Vec<[f32; DIM]> = (0..150_000).map(|i| [(i % 200) as f32, 1.0, 0.0, 0.0]).collect();
    m.write("query/in", npy(&queries)).expect("a batch of 2.4 MB");
    let ids = m.bytes("query/out.ids.npy");
    let parsed = rvf_fs::data::npy::Npy::parse(&ids).expect("NumPy");
    assert_eq!(parsed.shape(), [150_000, 1]);
    let tail = u64::from_le_bytes(*ids.last_chunk::<8>().expect("an id"));
    assert_eq!(tail, (149_999 % 200) * 10);
}

#[test]
fn json_results_carry_fields_and_how_they_were_found() {
    need_fuse!();
    let m = Mounted::new(50);
    m.write("query/in", "{\"id\": 20, \"k\": 2, \"fields\": [\"name\"]}\n").expect("a request");
    let json: serde_json::Value = serde_json::from_str(&m.read("query/out.json")).expect("JSON");
    let query = &json["queries"][0];
    assert_eq!(query["hits"][0]["fields"]["name"], "n2");
    assert_eq!(query["layer"], "scan");
    assert_eq!(query["exact"], true);
    assert_eq!(query["truncated"], false);
}

#[test]
fn filters_and_defaults() {
    need_fuse!();
    let m = Mounted::new(50);
    m.write("query/k", "2\n").expect("a default");
    m.write("query/filter", "year >= 2010 AND NOT good\n").expect("a default");
    m.write("query/in", "0,1,0,0\n").expect("a request");
    assert_eq!(m.read("query/out"), "100\t100.0\n140\t196.0\n");
    assert_eq!(m.read("query/filter"), "year >= 2010 AND NOT good\n");
    m.write("query/in", "{\"id\": 0, \"filter\": \"name = 'n4'\"}\n").expect("a request");
    assert_eq!(m.read("query/out"), "40\t16.0\n");
    m.write("query/filter", "").expect("back to none");
    assert_eq!(m.read("query/filter"), "");
    m.write("query/in", "0,1,0,0\n").expect("a request");
    assert_eq!(m.read("query/out"), "0\t0.0\n10\t1.0\n");
    assert_eq!(errno(m.write("query/filter", "year >\n")), libc::EINVAL);
    assert!(m.read("query/error").starts_with("filter: "));
    assert_eq!(errno(m.write("query/k", "none\n")), libc::EINVAL);
    assert_eq!(errno(m.write("query/in", "{\"id\": 0, \"filter\": \"year >\"}\n")), libc::EINVAL);
    assert_eq!(errno(m.write("query/in", "{\"id\": 5}\n")), libc::EINVAL);
    assert_eq!(m.read("query/error"), "there is no vector with id 5\n");
}

#[test]
fn private_sessions_do_not_see_each_other() {
    need_fuse!();
    let m = Mounted::new(50);
    fs::create_dir(m.path("query/a")).expect("a session");
    fs::create_dir(m.path("query/b")).expect("a session");
    m.write("query/a/k", "1\n").expect("a default");
    m.write("query/a/in", "2,1,0,0\n").expect("a request");
    m.write("query/b/in", "3,1,0,0\n").expect("a request");
    assert_eq!(m.read("query/a/out"), "20\t0.0\n");
    assert!(m.read("query/b/out").starts_with("30\t0.0\n"));
    assert_eq!(m.read("query/out"), "");
    assert_eq!(errno(fs::create_dir(m.path("query/a"))), libc::EEXIST);
    assert_eq!(errno(fs::create_dir(m.path("query/a/c"))), libc::EPERM);
    fs::remove_dir(m.path("query/a")).expect("removed");
    assert_eq!(errno(fs::read(m.path("query/a/out"))), libc::ENOENT);
    assert!(!m.list("query").contains(&"a".to_owned()));
}

#[test]
fn transactions_on_one_descriptor() {
    need_fuse!();
    let m = Mounted::new(50);
    let file = fs::File::options().read(true).write(true).open(m.path("query/in")).expect("opens");
    let ask = |request: &[u8]| -> String {
        assert_eq!(file.write_at(request, 0).expect("a request"), request.len());
        let mut answer = [0; 4096];
        let len = file.read_at(&mut answer, 0).expect("an answer");
        String::from_utf8(answer[..len].to_vec()).expect("text")
    };
    for i in 0..50_u64 {
        let answer = ask(&raw([i as f32, 1.0, 0.0, 0.0]));
        assert!(answer.starts_with(&format!("{}\t0.0\n", 10 * i)), "{answer}");
    }
    assert_eq!(ask(b"{\"id\": 70, \"k\": 1}"), "70\t0.0\n");
    assert_eq!(ask(b"2,1,0,0\n3,1,0,0\n").matches("\n\n").count(), 1);
    // Without an end, reading is the end.
    assert!(ask(b"2,1,0,0").starts_with("20\t0.0\n"));
    assert_eq!(errno(file.write_at(b"1,2,3\n", 0)), libc::EINVAL);
    file.write_at(b"1,2,3", 0).expect("incomplete so far");
    assert_eq!(errno(file.read_at(&mut [0; 10], 0)), libc::EINVAL);
    assert!(ask(b"4,1,0,0\n").starts_with("40\t0.0\n"), "it goes on after errors");
    assert_eq!(m.read("query/out"), "", "nobody else sees a transaction's results");
}

/// Programs that write and then read on, as one does with a socket, get the results from their first byte too.
#[test]
fn a_transaction_needs_no_seeking() {
    use std::io::Read;
    need_fuse!();
    let m = Mounted::new(50);
    assert_eq!(printed(&m.sh("exec 3<>query/in; echo 7,1,0,0 >&3; head -n 1 <&3")).trim(), "70\t0.0");
    let mut file = fs::File::options().read(true).write(true).open(m.path("query/in")).expect("opens");
    for i in [3_u64, 11, 4] {
        file.write_all(format!("{{\"id\": {}, \"k\": 2}}\n", 10 * i).as_bytes()).expect("a request");
        let mut text = String::new();
        file.read_to_string(&mut text).expect("results");
        assert!(text.starts_with(&format!("{}\t0.0\n", 10 * i)), "{text}");
        assert_eq!(text.lines().count(), 2);
        let mut first = [0; 2];
        assert_eq!(file.read_at(&mut first, 0).expect("by offset"), 2);
        assert_eq!(first, text.as_bytes()[..2]);
    }
    let script = "f = open('query/in', 'r+b', buffering=0); f.write(b'9,1,0,0\\n'); print(f.read(100).split()[0].decode())";
    assert_eq!(
        printed(&m.sh(&format!("python3 -c \"{script}\""))).split_whitespace().collect::<Vec<_>>(),
        ["90"]
    );
}

/// A shell does not look at what close() says; `out` must not show it the results of an earlier request then.
#[test]
fn a_refused_request_leaves_no_results() {
    need_fuse!();
    let m = Mounted::new(5);
    for bad in [
        "printf 1,2",
        "echo 1,2",
        "printf '{\"vector\":[1,0,0'",
        "printf '1 1 0 0\\n0 1\\n'",
        "echo nan,0,0,0",
    ] {
        m.sh("echo 2,1,0,0 > query/in");
        assert!(m.read("query/out").starts_with("20\t0.0\n"));
        let shown = m.sh(&format!("{bad} > query/in 2> /dev/null; cat query/out"));
        assert_eq!(printed(&shown), "", "{bad}");
        assert_ne!(m.read("query/error"), "", "{bad}");
        assert_eq!(m.read("query/out.json").trim(), r#"{"queries": []}"#, "{bad}");
    }
}

/// A program started while a request is being written closes its copy of the descriptor, and ends nothing.
#[test]
fn a_request_outlives_programs_started_meanwhile() {
    need_fuse!();
    let m = Mounted::new(5);
    let mut file = fs::File::create(m.path("query/in")).expect("opens");
    file.write_all(b"2,1").expect("a beginning");
    run_ok("true", ["x"]);
    file.write_all(b",0,0").expect("the rest");
    run_ok("true", ["x"]);
    mounted::close(file).expect("closed");
    assert_eq!(m.read("query/out").lines().next(), Some("20\t0.0"));
    assert_eq!(m.read("query/error"), "");
}

/// Another program's commit is in the answer to what is asked after it.
#[test]
fn a_request_sees_what_was_committed_before_it() {
    need_fuse!();
    let m = Mounted::new(5);
    let store = open_store(&m.source);
    for i in 0..20_u32 {
        let batch = rvf_cow::Batch {
            dimension: 4,
            ids: Some(vec![u64::from(1000 + i)]),
            vectors: vec![500.0 + i as f32, 1.0, 0.0, 0.0],
            metadata: Vec::new(),
            on_bad_row: rvf_cow::BadRow::Refuse,
        };
        store.ingest(&batch, &rvf_cow::NoProgress).expect("a row");
        m.write("query/in", format!("{},1,0,0\n", 500 + i)).expect("a request");
        assert!(m.read("query/out").starts_with(&format!("{}\t0.0\n", 1000 + i)), "{i}");
    }
}

#[test]
fn many_clients_at_once_get_their_own_answers_while_data_comes_in() {
    need_fuse!();
    let m = Mounted::new(2000);
    std::thread::scope(|scope| {
        for client in 0..64_u64 {
            let m = &m;
            scope.spawn(move || {
                let file =
                    fs::File::options().read(true).write(true).open(m.path("query/in")).expect("opens");
                for i in 0..40 {
                    let at = (client * 31 + i * 7) % 2000;
                    file.write_at(&raw([at as f32, 1.0, 0.0, 0.0]), 0).expect("a request");
                    let mut answer = [0; 4096];
                    let len = file.read_at(&mut answer, 0).expect("an answer");
                    let text = std::str::from_utf8(&answer[..len]).expect("text");
                    assert!(text.starts_with(&format!("{}\t0.0\n", 10 * at)), "client {client}: {text}");
                }
            });
        }
        scope.spawn(|| {
            for batch in 0..10_u64 {
                let rows: String = (0..20)
                    .map(|i| {
                        format!(
                            "{{\"id\": {}, \"vector\": [-{},5,5,5]}}\n",
                            1_000_001 + batch * 20 + i,
                            i + 1
                        )
                    })
                    .collect();
                m.write(&format!("ingest/b{batch}.jsonl"), rows).expect("an ingest");
            }
        });
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    m.write("query/in", "5,1,0,0\n").expect("a request");
                    assert!(m.read("query/out").starts_with("50\t0.0\n"));
                }
            });
        }
    });
    assert_eq!(m.status("vectors"), "2200");
}

#[test]
fn the_ioctl_answers_in_one_message() {
    need_fuse!();
    let m = Mounted::new(50);
    let file = fs::File::options().read(true).write(true).open(m.path("query/in")).expect("opens");
    let mut buffer = vec![0_u8; rvf_fs::ioctl::buffer_size(DIM, 3)];
    let head = |k: u32, dim: u32, version: u32| {
        [version, k, 0, dim, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>()
    };
    let mut call = |head: Vec<u8>, vector: [f32; DIM]| -> Result<Vec<u8>, i32> {
        buffer.fill(0);
        buffer[..24].copy_from_slice(&head);
        buffer[24..24 + 16].copy_from_slice(&raw(vector));
        let number = rvf_fs::ioctl::number(buffer.len());
        #[expect(unsafe_code, reason = "ioctl")]
        // SAFETY: the number says the size of the buffer, which is writable for that long.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::Ioctl::from(number), buffer.as_mut_ptr()) };
        if result == 0 {
            Ok(buffer.clone())
        } else {
            Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
        }
    };
    let answer = call(head(3, 4, 1), [2.0, 1.0, 0.0, 0.0]).expect("an answer");
    assert_eq!(answer[0], 3);
    let ids: Vec<u64> =
        answer[24..48].as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
    let distances: Vec<f32> =
        answer[48..60].as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    assert_eq!((ids, distances), (vec![20, 10, 30], vec![0.0, 1.0, 1.0]));
    for (head, vector) in [
        (head(3, 5, 1), [0.0; 4]),
        (head(3, 4, 2), [0.0; 4]),
        (head(100, 4, 1), [0.0; 4]),
        (head(3, 4, 1), [f32::NAN; 4]),
    ] {
        assert_eq!(call(head, vector), Err(libc::EINVAL));
        assert_ne!(m.read("query/error"), "");
    }
    let other = fs::File::open(m.path("status")).expect("opens");
    let number = rvf_fs::ioctl::number(32);
    let mut small = [0_u8; 32];
    #[expect(unsafe_code, reason = "ioctl")]
    // SAFETY: as above.
    let result = unsafe { libc::ioctl(other.as_raw_fd(), libc::Ioctl::from(number), small.as_mut_ptr()) };
    assert_eq!((result, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::ENOTTY)));
}

#[test]
fn the_c_header_and_the_python_helper_work() {
    need_fuse!();
    let m = Mounted::new(50);
    let dir = tempfile::tempdir().expect("a directory");
    if mounted::has("cc") {
        let program = dir.path().join("ask.c");
        fs::write(
            &program,
            "#include <fcntl.h>\n#include <stdio.h>\n#include <sys/ioctl.h>\n#include \"rvf_mount.h\"\n\
             int main(int argc, char **argv) {\n\
             char buffer[256]; float query[4] = {2, 1, 0, 0}; size_t size = rvf_query_size(4, 3);\n\
             int fd = open(argv[argc - 1], O_RDWR);\n\
             rvf_query_fill(buffer, query, 4, 3, 0);\n\
             if (fd < 0 || ioctl(fd, RVF_IOC_QUERY(size), buffer)) return 1;\n\
             struct rvf_answer head; memcpy(&head, buffer, sizeof head);\n\
             for (uint32_t i = 0; i < head.count; i++) {\n\
             uint64_t id; float distance; rvf_answer_hit(buffer, i, &id, &distance);\n\
             printf(\"%llu %g\\n\", (unsigned long long)id, distance); }\n\
             return 0; }\n",
        )
        .expect("a program");
        let out = dir.path().join("ask");
        let include = concat!("-I", env!("CARGO_MANIFEST_DIR"), "/include");
        run_ok(
            "cc",
            ["-Wall", "-Wextra", "-Werror", "-std=c11", include, "-o"]
                .map(std::ffi::OsStr::new)
                .into_iter()
                .chain([out.as_os_str(), program.as_os_str()]),
        );
        assert_eq!(run_ok(out.to_str().expect("UTF-8"), [m.path("query/in")]), "20 0\n10 1\n30 1\n");
    }
    let numpy = std::process::Command::new("python3").args(["-c", "import numpy"]).output();
    if numpy.is_ok_and(|output| output.status.success()) {
        let script = "import sys; sys.path.insert(0, sys.argv[1]); from rvf_mount import Query\n\
                      with Query(sys.argv[2]) as query:\n    ids, distances = query([2, 1, 0, 0], k=3)\n    print(ids.tolist(), distances.tolist())\n";
        let python = concat!(env!("CARGO_MANIFEST_DIR"), "/python");
        let text = run_ok("python3", ["-B", "-c", script, python, m.at.to_str().expect("UTF-8")]);
        assert_eq!(text, "[20, 10, 30] [0.0, 1.0, 1.0]\n");
    } else {
        eprintln!("SKIPPED a part: python3 with numpy is not installed");
    }
}

#[test]
fn reading_in_gives_nothing_and_never_waits() {
    need_fuse!();
    let m = Mounted::new(5);
    assert_eq!(m.read("query/in"), "");
    m.write("query/in", "2,1,0,0\n").expect("a request");
    assert_eq!(m.read("query/in"), "");
    assert_eq!(fs::metadata(m.path("query/in")).expect("attributes").len(), 0);
}

/// A shell's requests go to the daemon by two ways, and looking at the file has the kernel change from one to the
/// other. Pages of a longer request must not come back in a shorter one, nor to whoever maps or reads the file.
#[test]
fn requests_of_every_length_are_the_same_by_either_way_into_the_kernel() {
    need_fuse!();
    let m = Mounted::new(50);
    let reader = fs::File::open(m.path("query/in")).expect("opened");
    for round in 0..12_usize {
        let lines = [1, 700, 3, 5000, 1, 70_000][round % 6];
        m.write("query/in", "7,1,0,0\n".repeat(lines)).expect("asked");
        assert_eq!(m.read("query/out").matches("70\t0.0\n").count(), lines, "round {round}");
        m.write("query/in", "2,1,0,0\n").expect("asked");
        assert!(m.read("query/out").starts_with("20\t0.0\n"), "round {round}");
        let mut byte = [0; 1];
        assert_eq!(reader.read_at(&mut byte, 0).expect("read"), 0, "a request cannot be read");
        assert_eq!(errno(m.write("query/in", "7,1,0,0\n".repeat(600) + "7,1,0\n")), libc::EINVAL);
        assert_eq!(errno(m.write("query/in", "7,1,0")), libc::EINVAL, "round {round}");
        if round % 3 == 2 {
            assert_eq!(fs::metadata(m.path("query/in")).expect("in").len(), 0);
        }
    }
}

#[test]
fn a_request_over_the_limit_is_refused() {
    need_fuse!();
    let m = Mounted::new(5);
    let mut file = fs::File::options().write(true).open(m.path("query/in")).expect("opens");
    let piece = vec![b'1'; 8 << 20];
    let mut error = None;
    for _ in 0..40 {
        if let Err(refused) = file.write_all(&piece) {
            error = Some(refused);
            break;
        }
    }
    assert_eq!(error.and_then(|error| error.raw_os_error()), Some(libc::EFBIG));
    drop(file);
    assert!(m.read("query/error").contains("268435456 bytes"), "{}", m.read("query/error"));
    m.write("query/in", "2,1,0,0\n").expect("it goes on");
}

#[test]
fn pollers_wake_when_a_result_or_an_event_comes() {
    need_fuse!();
    let m = Mounted::new(5);
    for name in ["query/out", "events"] {
        let file = fs::File::open(m.path(name)).expect("opens");
        let poll = |timeout| {
            let mut wanted = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            #[expect(unsafe_code, reason = "poll")]
            // SAFETY: one valid pollfd.
            unsafe {
                libc::poll(&raw mut wanted, 1, timeout)
            }
        };
        assert_eq!(poll(0), 0, "{name}: nothing has happened");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| poll(10_000));
            m.write("query/in", "2,1,0,0\n").expect("a request");
            m.write("vectors/0", "2,1,0,0\n").expect("a change");
            assert_eq!(waiting.join().expect("no panic"), 1, "{name}");
        });
    }
}
