//! Reading a file into a view, and for a copy-on-write child the whole chain of its parents.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rvf_format::contents::{self, VecBlock};
use rvf_format::header::SegType;
use rvf_format::recover;
use rvf_format::{ChecksumState, FileBytes, Segment};
use rvf_format::{Finding, Severity};
use rvf_index::{Image, Metric, SCAN_BELOW_ROWS, ScratchPool};

use crate::accesses::Accesses;
use crate::branch::pin;
use crate::coverage;
use crate::error::Error;
use crate::filters::Filters;
use crate::loading::{Loaded, Loading};
use crate::parent::{self, Found, Missing, Parent};
use crate::rows::RowTable;
use crate::shared;
use crate::source::{Given, open_regular, stamp};
use crate::types::{EAGER_VERIFY_BYTES, OpenOptions};
use crate::unchanged::Seen;
use crate::view::View;

/// Identifies a vector segment's bytes: offset, length, stored hash.
pub(crate) type BlockKey = (u64, u64, [u8; 16]);

pub(crate) fn key_of(block: &VecBlock) -> BlockKey {
    segment_key(&block.segment)
}

pub(crate) fn segment_key(segment: &Segment) -> BlockKey {
    (segment.offset, segment.header.payload_len(), segment.header.content_hash)
}

pub(crate) fn segment_is_sound(segment: &Segment, bytes: &[u8]) -> bool {
    matches!(segment.verify(bytes), ChecksumState::Ok | ChecksumState::Unset)
}

pub(crate) fn remember(checked: &Mutex<HashMap<BlockKey, bool>>, segment: &Segment, sound: bool) -> bool {
    checked.lock().insert(segment_key(segment), sound);
    sound
}

pub(crate) fn is_sound(block: &VecBlock, bytes: &[u8]) -> bool {
    match block.verify(bytes) {
        ChecksumState::Ok | ChecksumState::Unset => true,
        ChecksumState::Bad | ChecksumState::Unsupported => false,
    }
}

/// What a view is read with.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) scratch: &'a Arc<ScratchPool>,
    pub(crate) loaded: &'a Loaded,
    pub(crate) accesses: &'a Arc<Accesses>,
    pub(crate) checked: &'a Mutex<HashMap<BlockKey, bool>>,
    pub(crate) generation: u64,
    pub(crate) transient: Option<&'a Arc<Image>>,
    /// The files of the chain where they are not found by their paths, oldest last.
    pub(crate) given: &'a [Given],
}

/// Reads a file into a view, and for a copy-on-write child the whole chain of its parents. O(segments), plus checksums
/// as the options ask. Parents that `before` holds already are not read again.
pub(crate) fn load(
    path: &Path,
    options: &OpenOptions,
    context: &Context<'_>,
    before: Option<&View>,
) -> Result<View, Error> {
    let by_path = context.given.is_empty();
    let mut view = match context.given.first() {
        Some(Given { path, file, meta, len }) => {
            load_one(path, Arc::clone(file), meta, *len, *len, options, context)?
        }
        None => {
            let (file, meta) = open_regular(path, false)?;
            load_one(path, Arc::new(file), &meta, meta.len(), meta.len(), options, context)?
        }
    };
    let mut visited = vec![(view.stamp.dev, view.stamp.ino)];
    // The files of the chain, oldest last; each but the last has a parent, which is the next.
    let mut chain: Vec<(View, bool)> = Vec::new();
    let last = before;
    let mut before = before.and_then(View::parent_view);
    let mut end: Option<Result<Parent, Missing>> = None;
    // Where the file last found should lie.
    let mut place: Option<PathBuf> = None;
    loop {
        let youngest = chain.last().map_or(&view, |(view, _)| view);
        let Some(Ok(cow)) = cow_of(youngest) else {
            if let Some(Err(missing)) = cow_of(youngest) {
                end = Some(Err(missing));
            }
            break;
        };
        let found = match find(youngest, cow, context, place.as_deref(), &visited) {
            Ok(found) => found,
            Err(missing) => {
                end = Some(Err(missing));
                break;
            }
        };
        place = Some(parent::directory_of(&youngest.path).join(&cow.map.parent_path));
        let unchanged = found.len == found.whole;
        let dim = youngest.dimension();
        let own = before.filter(|view| shared::usable(view, &found, options)).map(Arc::clone);
        let room = parent::MAX_DEPTH - visited.len();
        // What somebody else has read may have got an index since.
        let known = match own {
            Some(own) if own.image.is_some() => Some(own),
            own if by_path => shared::find(&found, options, room).or(own),
            own => own,
        };
        if let Some(known) = known.filter(|known| known.dimension() == dim) {
            end = Some(Ok(Parent::new(known, unchanged)));
            break;
        }
        before = before.and_then(|view| view.parent_view());
        visited.push((found.meta.dev(), found.meta.ino()));
        // Checksums of the parent are looked at anew: the map of known ones is keyed by offset.
        let checked = Mutex::new(HashMap::new());
        let context = Context { checked: &checked, generation: 1, transient: None, ..*context };
        let Found { path, file, meta, len, whole } = &found;
        match load_one(path, Arc::clone(file), meta, *len, *whole, options, &context) {
            Ok(parent) if !parent.damaged.is_empty() => {
                let what =
                    "has vector segments that fail their checksum; what is left of it can be read by itself";
                end = Some(Err(format!("its parent {} {what}; restore it", found.path.display())));
                break;
            }
            Ok(mut parent) if parent.dimension() == dim => {
                if !unchanged && parent.image.is_none() {
                    parent.image = later_image(&parent, found.whole);
                }
                chain.push((parent, unchanged));
            }
            Ok(_) => {
                end = Some(Err(format!("{} has another dimension", found.path.display())));
                break;
            }
            Err(error) => {
                end = Some(Err(format!("its parent cannot be read: {error}")));
                break;
            }
        }
    }
    // Each file gets its parent, from the oldest on.
    while let Some((mut parent, unchanged)) = chain.pop() {
        attach(&mut parent, end.take(), None);
        let parent = Arc::new(parent);
        if by_path {
            shared::remember(&parent, options);
        }
        end = Some(Ok(Parent::new(parent, unchanged)));
    }
    attach(&mut view, end, last);
    if let Some(last) = last {
        view.inherit_columns(last);
        view.inherit_codes(last);
    }
    Ok(view)
}

/// Finds the parent of a file: among those given, or by its path. `place` is where the file itself should lie.
fn find(
    youngest: &View,
    cow: &contents::Cow,
    context: &Context<'_>,
    place: Option<&Path>,
    visited: &[(u64, u64)],
) -> Result<Found, Missing> {
    let identity = youngest.opened.manifest.as_ref().and_then(|m| m.manifest.identity.as_ref());
    let pin = youngest.pin.as_ref();
    if !context.given.is_empty() {
        return parent::find_given(context.given.get(visited.len()), cow, identity, pin, visited);
    }
    parent::find(&youngest.path, cow, identity, pin, visited).or_else(|missing| {
        let moved = place.and_then(|place| parent::find_moved(youngest, cow, place, identity, visited));
        moved.ok_or(missing)
    })
}

/// The search image that was made for a file's rows after the state of it that `state` shows. It describes that state too
/// when it covers the same vector segments and as many rows were live: rows only die, so they are the same rows.
fn later_image(state: &View, len: u64) -> Option<Arc<Image>> {
    if !state.damaged.is_empty() || u64::from(state.rows.total()) < SCAN_BELOW_ROWS {
        return None;
    }
    let bytes = FileBytes::map(&state.file, len).ok()?;
    let opened = recover::open(&bytes);
    let image = listed_indexes(&opened)
        .into_iter()
        .rev()
        .filter(|segment| segment_is_sound(segment, &bytes))
        .filter_map(|segment| coverage::open_image(&bytes, &segment))
        .find(|image| coverage::fits(image, state.dimension(), state.metric, &state.blocks))?;
    let same = image.covered_rows() == state.rows.total() && u64::from(image.nodes()) == state.live();
    same.then(|| Arc::new(image))
}

/// The branch state of a file, when it lists one. A child whose record cannot be read is still a child: answering from
/// its own rows alone would be silently wrong.
fn cow_of(view: &View) -> Option<Result<&contents::Cow, Missing>> {
    let listed = |kind| {
        let manifest = view.opened.manifest.as_ref().map(|m| &m.manifest);
        manifest.is_some_and(|m| m.entries_of(kind).next().is_some())
    };
    // Without a COW_MAP it is the record of a child that needs no parent.
    if let Some(damage) = view.pin_damage.as_ref().filter(|_| listed(SegType::COW_MAP)) {
        return Some(Err(damage.clone()));
    }
    match &view.contents.cow {
        Some(cow) => Some(Ok(cow)),
        None => {
            let mut entries = view.opened.manifest.as_ref()?.manifest.entries_of(SegType::COW_MAP);
            entries.next()?;
            Some(Err("the record of its parent (COW_MAP or MEMBERSHIP) is damaged".into()))
        }
    }
}

/// Which ancestor of those that a file shows cannot be read, and why.
fn missing_above(view: &View) -> Option<Missing> {
    let mut next = view;
    loop {
        match &next.parent {
            None => return None,
            Some(Err(missing)) if std::ptr::eq(next, view) => return Some(missing.clone()),
            Some(Err(missing)) => return Some(format!("{}: {missing}", next.path.display())),
            // The existing tools look at one level only, and their children mean just that.
            Some(Ok(_)) if next.pin.is_none() => return None,
            Some(Ok(parent)) => next = &parent.view,
        }
    }
}

/// Whether the ancestor that could not be read is where it should be now.
pub(crate) fn is_missing_there(view: &View) -> bool {
    let mut last = view;
    while let Some(Ok(parent)) = &last.parent {
        last = &parent.view;
    }
    let identity = last.opened.manifest.as_ref().and_then(|m| m.manifest.identity.as_ref());
    match cow_of(last) {
        Some(Ok(cow)) => parent::find(&last.path, cow, identity, last.pin.as_ref(), &[]).is_ok(),
        _ => false,
    }
}

fn attach(view: &mut View, parent: Option<Result<Parent, Missing>>, before: Option<&View>) {
    view.parent = parent;
    if let Some(missing) = missing_above(view) {
        view.findings.push(Finding {
            severity: Severity::Warning,
            code: "parent-missing",
            offset: 0,
            text: format!("copy-on-write child: {missing}; only its own rows are shown"),
            mend: Some("put the parent back where the child expects it".into()),
        });
        view.findings.sort_by_key(|f| std::cmp::Reverse(f.severity));
    }
    view.resolve_deltas(before);
}

/// Reads the first `len` of `whole` bytes of an open file into a view that knows no parent yet.
fn load_one(
    path: &Path,
    file: Arc<std::fs::File>,
    meta: &std::fs::Metadata,
    len: u64,
    whole: u64,
    options: &OpenOptions,
    context: &Context<'_>,
) -> Result<View, Error> {
    let mut stamp = stamp(path, meta)?;
    stamp.len = len;
    let bytes =
        if options.mmap { FileBytes::map(&file, stamp.len) } else { FileBytes::read(&file, stamp.len) }
            .map_err(|e| Error::io(path, "map", e))?;
    let opened = recover::open(&bytes);
    let contents = contents::read(&bytes, &opened);
    let mut findings: Vec<Finding> = opened.findings.clone();
    findings.extend(contents.findings.iter().cloned());
    if opened.manifest.is_none() && contents.blocks.is_empty() {
        return Err(unusable(path, &bytes, &findings, opened.layout.segments().count()));
    }

    let dim = match &opened.manifest {
        Some(m) => usize::from(m.manifest.dimension),
        None => contents.blocks.first().map_or(0, |b| usize::from(b.dim)),
    };
    let metric =
        opened.manifest.as_ref().and_then(|m| Metric::from_code(m.manifest.metric)).unwrap_or(Metric::L2);
    let blocks: Vec<VecBlock> =
        contents.blocks.iter().filter(|b| usize::from(b.dim) == dim).cloned().collect();
    let rows = RowTable::new(bytes.clone(), dim, &blocks)?;

    let total: u64 = blocks.iter().map(|b| b.segment.header.payload_len()).sum();
    let eager = options.verify || total <= EAGER_VERIFY_BYTES;
    let mut verified = true;
    let mut damaged = Vec::new();
    for (index, block) in blocks.iter().enumerate() {
        let known = context.checked.lock().get(&key_of(block)).copied();
        let sound = match known {
            Some(sound) => sound,
            None if eager => {
                let sound = is_sound(block, &bytes);
                context.checked.lock().insert(key_of(block), sound);
                sound
            }
            None => {
                verified = false;
                true
            }
        };
        if !sound && let Some(range) = rows.block_ordinals(index) {
            findings.push(Finding {
                severity: Severity::Damage,
                code: "vectors-damaged",
                offset: block.segment.offset,
                text: format!(
                    "{} segment {} at byte {} fails its checksum; its {} rows are left out",
                    if block.segment.kind() == SegType::DELTA { "DELTA" } else { "VEC" },
                    block.segment.ordinal + 1,
                    block.segment.offset,
                    range.len()
                ),
                mend: Some("restore these vectors from a copy and ingest them again".into()),
            });
            damaged.push(range);
        }
    }

    let mut image = None;
    let mut stale_index = false;
    for segment in listed_indexes(&opened).into_iter().rev() {
        let Some(found) = coverage::open_image(&bytes, &segment) else { continue };
        if !coverage::fits(&found, dim, metric, &blocks) {
            stale_index = true;
            continue;
        }
        let known = context.checked.lock().get(&segment_key(&segment)).copied();
        let sound = known.unwrap_or_else(|| {
            verified &= eager;
            !eager || remember(context.checked, &segment, segment_is_sound(&segment, &bytes))
        });
        if sound {
            image = Some(Arc::new(found));
            break;
        }
        stale_index = true;
        findings.push(Finding {
            severity: Severity::Warning,
            code: "index-damaged",
            offset: segment.offset,
            text: format!(
                "INDEX segment {} at byte {} fails its checksum and is not used; no vector is affected",
                segment.ordinal + 1,
                segment.offset
            ),
            mend: Some("run `rvf reindex`, or write `reindex` to ctl".into()),
        });
    }
    let mut image_in_memory = false;
    if let Some(own) = context.transient
        && image.as_ref().is_none_or(|stored| stored.covered_rows() < own.covered_rows())
        && coverage::fits(own, dim, metric, &blocks)
    {
        image = Some(Arc::clone(own));
        image_in_memory = true;
    }
    stale_index &= image.is_none();
    let (pin, pin_damage) = match pin::read(&bytes, &opened) {
        Ok(pin) => (pin, None),
        Err(damage) => (None, Some(damage)),
    };
    let (origin, pin) = match pin {
        Some(pin) if pin.standalone => (Some(pin), None),
        pin => (None, pin),
    };
    findings.sort_by_key(|f| std::cmp::Reverse(f.severity));

    let mut deleted = opened.manifest.as_ref().map(|m| m.manifest.deleted.clone()).unwrap_or_default();
    deleted.sort_unstable();
    deleted.dedup();
    Ok(View {
        path: path.to_path_buf(),
        file,
        stamp,
        whole,
        seen: Seen::new(meta),
        generation: context.generation,
        opened,
        contents,
        blocks,
        deleted_ids: deleted,
        rows,
        metric,
        image,
        image_in_memory,
        stale_index,
        damaged,
        verified,
        findings,
        parent: None,
        pin,
        origin,
        pin_damage,
        digest: std::sync::OnceLock::new(),
        places: std::sync::OnceLock::new(),
        scratch: Arc::clone(context.scratch),
        loading: Loading::new(context.loaded, (stamp.dev, stamp.ino)),
        accesses: Arc::clone(context.accesses),
        live: std::sync::OnceLock::new(),
        meta: std::sync::OnceLock::new(),
        filters: Filters::default(),
        max_id: std::sync::OnceLock::new(),
        live_set: std::sync::OnceLock::new(),
        codes: crate::coded::Codes::default(),
    })
}

/// The INDEX segments that the manifest lists, in its order.
pub(crate) fn listed_indexes(opened: &recover::Opened) -> Vec<Segment> {
    let Some(manifest) = &opened.manifest else { return Vec::new() };
    manifest
        .manifest
        .entries_of(SegType::INDEX)
        .filter_map(|e| opened.layout.segment_at_offset(e.offset).cloned())
        .collect()
}

fn unusable(path: &Path, bytes: &[u8], findings: &[Finding], segments: usize) -> Error {
    let reason = if bytes.is_empty() {
        "the file is empty; `rvf create` makes a store".to_owned()
    } else if segments == 0 {
        format!("none of its {} bytes form an RVF segment", bytes.len())
    } else {
        let worst = findings.iter().max_by_key(|f| f.severity);
        worst.map_or_else(
            || format!("{segments} segments, but no manifest and no vectors"),
            |f| f.text.clone(),
        )
    };
    // A file that starts like RVF in another version is reported as that, everything else as a
    // store whose manifest is not there.
    let version = bytes.first_chunk::<5>();
    let code = match version {
        Some([b'S', b'F', b'V', b'R', v]) if *v != 1 => 0x0101,
        _ => 0x0106,
    };
    Error::NotRvf { path: path.to_path_buf(), reason, code }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::ops::Range;

    use super::*;
    use crate::source::Device;
    use crate::{
        BadRow, Batch, BranchOptions, CreateOptions, NoProgress, ReindexOptions, SearchRequest, Store,
    };

    fn put(store: &Store, ids: Range<u64>, height: f32) {
        let batch = Batch {
            dimension: 3,
            vectors: ids.clone().flat_map(|id| [(id % 31) as f32, (id % 7) as f32, height]).collect(),
            ids: Some(ids.collect()),
            metadata: Vec::new(),
            on_bad_row: BadRow::Refuse,
        };
        store.ingest(&batch, &NoProgress).expect("rows");
    }

    fn create(path: &Path, rows: u64) -> Arc<Store> {
        let options = CreateOptions { dimension: 3, metric: Metric::L2, profile: 0 };
        let store = Store::create(path, &options).expect("a store");
        put(&store, 0..rows, 0.0);
        store
    }

    fn open(path: &Path) -> Arc<Store> {
        Store::open(path, &OpenOptions::default()).expect("opened")
    }

    fn branch(of: &Store, path: &Path) -> Arc<Store> {
        of.branch(path, &BranchOptions::default()).expect("a branch");
        open(path)
    }

    fn given(path: &Path) -> Given {
        let file = File::open(path).expect("opened");
        let meta = file.metadata().expect("attributes");
        Given { path: path.to_path_buf(), file: Arc::new(file), len: meta.len(), meta }
    }

    fn open_given(files: &[&Path]) -> Arc<Store> {
        let files = files.iter().map(|path| given(path)).collect();
        Store::open_given(files, &OpenOptions::default()).expect("opened")
    }

    fn answers(store: &Store) -> Result<Vec<(u64, f32)>, Error> {
        let request = SearchRequest {
            queries: &[3.2, 4.1, 0.5],
            k: 40,
            ef: None,
            filter: None,
            exact: true,
            deadline: None,
            threads: 1,
        };
        let answers = store.view().search(&request)?;
        Ok(answers.iter().flat_map(|answer| &answer.hits).map(|hit| (hit.id, hit.distance)).collect())
    }

    /// A branch, its parent and that one's, none of which lies where another expects it; and what the branch answered before.
    fn chain(dir: &Path) -> ([PathBuf; 3], Vec<(u64, f32)>) {
        let [oldest, parent, child] = ["g.rvf", "p.rvf", "c.rvf"].map(|name| dir.join(name));
        let g = create(&oldest, 2000);
        let p = branch(&g, &parent);
        // What an ancestor gets later is not shown, but an index of what is shown is used.
        let index = ReindexOptions { threads: 1, m: 4, ef_construction: 16, ..ReindexOptions::default() };
        g.reindex(&index, &NoProgress).expect("an index");
        put(&g, 3000..3010, 0.5);
        put(&p, 4000..4020, 0.4);
        p.delete(&[3, 34]).expect("deleted");
        let c = branch(&p, &child);
        put(&p, 4000..4010, 0.5);
        put(&c, 96..100, 0.5);
        c.delete(&[4001]).expect("deleted");
        let before = answers(&c).expect("answers");
        drop((g, p, c));
        fs::create_dir(dir.join("away")).expect("a directory");
        let moved = [(child, "0"), (parent, "1"), (oldest, "2")].map(|(from, name)| {
            let to = dir.join("away").join(name);
            fs::rename(from, &to).expect("moved");
            to
        });
        (moved, before)
    }

    #[test]
    fn a_branch_answers_with_the_ancestors_that_it_is_given() {
        let dir = tempfile::tempdir().expect("a directory");
        let ([c, p, g], before) = chain(dir.path());
        assert!(open(&c).view().complete().is_err(), "none is found by its path");
        let other = dir.path().join("other.rvf");
        drop(create(&other, 10));
        for files in [vec![&*c, &p, &g], vec![&*c, &p, &g, &other]] {
            let store = open_given(&files);
            let check = |view: &View| {
                view.complete().expect("whole");
                assert_eq!(view.chain().map(|view| &*view.path).collect::<Vec<_>>(), [&*c, &p, &g]);
                let lens: Vec<u64> = view.chain().map(|view| view.whole).collect();
                assert_eq!(lens, [&c, &p, &g].map(|path| fs::metadata(path).expect("attributes").len()));
                assert!(view.chain().skip(1).all(|view| view.file_len() < view.whole));
                assert!(view.chain().last().is_some_and(|oldest| oldest.image.is_some()));
            };
            check(&store.view());
            assert_eq!(answers(&store).expect("answers"), before);
            assert!(!store.is_behind());
            store.publish().expect("read anew");
            check(&store.view());
            assert_eq!(answers(&store).expect("answers"), before);
        }
    }

    #[test]
    fn files_that_are_not_the_ancestors_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let ([c, p, g], _) = chain(dir.path());
        let at = |name: &str| dir.path().join(name);
        drop(create(&at("other"), 2000));
        let pinned = {
            let store = open_given(&[&c, &p, &g]);
            store.view().parent_view().expect("a parent").file_len()
        };
        let bytes = fs::read(&p).expect("read");
        let prefix = &bytes[..pinned as usize];
        fs::write(at("state"), prefix).expect("written");
        fs::write(at("cut"), &prefix[..prefix.len() - 1]).expect("written");
        let mut changed = bytes.clone();
        changed[prefix.len() - 1] ^= 1;
        fs::write(at("changed"), changed).expect("written");
        open_given(&[&c, &at("state"), &g]).view().complete().expect("the very state");
        for (parents, word) in [
            (vec![], "not among the devices"),
            (vec![p.clone()], "not among the devices"),
            (vec![g.clone(), p.clone()], "another file"),
            (vec![at("other"), g.clone()], "another file"),
            (vec![p.clone(), at("other")], "another file"),
            (vec![c.clone(), g.clone()], "its own ancestor"),
            (vec![p.clone(), p.clone()], "its own ancestor"),
            (vec![at("cut"), g.clone()], "is shorter than"),
            (vec![at("changed"), g.clone()], "no longer starts with"),
        ] {
            let files: Vec<&Path> = std::iter::once(&c).chain(&parents).map(PathBuf::as_path).collect();
            let store = open_given(&files);
            let error = store.view().complete().expect_err("not its ancestors").to_string();
            assert!(error.contains(word), "{parents:?}: {error}");
            assert!(answers(&store).is_err(), "{parents:?}");
        }
        // The length that is said counts, not that of the file.
        let mut files = [&c, &p, &g].map(|path| given(path)).to_vec();
        files[1].len = pinned - 1;
        let store = Store::open_given(files, &OpenOptions::default()).expect("opened");
        assert!(store.view().complete().is_err());
    }

    #[test]
    fn a_child_of_the_existing_tools_finds_its_state_in_what_it_is_given() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../format/tests/golden/branch/set-1");
        let dir = golden.join("cow-parent-changed");
        let store = open_given(&[&dir.join("child.rvf"), &dir.join("parent.rvf")]);
        let by_path = open(&dir.join("child.rvf"));
        assert!(store.view().inherited_count() > 0);
        assert_eq!(store.view().inherited_count(), by_path.view().inherited_count());
        let wrong = open_given(&[&dir.join("child.rvf"), &golden.join("cow-basic/child.rvf")]);
        assert!(wrong.view().complete().is_err());
    }

    #[test]
    fn only_block_devices_are_devices() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let device = Device { path: file.path().to_path_buf(), len: 1 };
        for devices in [vec![device], Vec::new()] {
            let error = Store::open_devices(&devices, &OpenOptions::default()).expect_err("no device");
            assert!(matches!(error, Error::Invalid { .. }), "{error}");
        }
    }
}
