//! The append writer: what it puts where, and what is left after a crash at any moment.

mod common;

use common::{Store, golden};
use rvf_format::storage::{MemStorage, Storage};
use rvf_format::writer::{Writer, dir_entry};
use rvf_format::{DirEntry, Error, Family, FileIdentity, Manifest, SegType, recover, vec_seg};

fn manifest(epoch: u32, rows: u64, directory: &[DirEntry]) -> Manifest {
    Manifest {
        epoch,
        dimension: 2,
        total_vectors: rows,
        directory: directory.to_vec(),
        identity: Some(FileIdentity { file_id: [9; 16], ..FileIdentity::default() }),
        ..Manifest::default()
    }
}

/// Creates a store and commits `commits` batches of two vectors; returns what went wrong first, if anything did.
fn history(storage: &dyn Storage, commits: u32) -> Result<(), Error> {
    let mut directory = Vec::new();
    Writer::create(storage)?.commit(&manifest(0, 0, &directory))?;
    for epoch in 1..=commits {
        let mut bytes = vec![0; storage.len().expect("length") as usize];
        storage.read_at(&mut bytes, 0).expect("read");
        let opened = recover::open(&bytes);
        let mut writer = Writer::new(storage, &opened)?;
        let ids = [u64::from(epoch) * 2, u64::from(epoch) * 2 + 1];
        let payload = vec_seg::encode(2, &ids, &[1.0, 2.0, 3.0, epoch as f32])?;
        directory.push(dir_entry(&writer.append(SegType::VEC, &[&payload[..6], &payload[6..]])?));
        writer.commit(&manifest(epoch, u64::from(epoch) * 2, &directory))?;
    }
    Ok(())
}

#[test]
fn a_fresh_store_is_192_bytes_and_segments_are_aligned() {
    let storage = MemStorage::default();
    history(&storage, 0).expect("create");
    assert_eq!(storage.live().len(), 192);
    let storage = MemStorage::default();
    history(&storage, 3).expect("history");
    let store = Store::open(storage.live());
    assert_eq!(store.live.keys().copied().collect::<Vec<_>>(), [2, 3, 4, 5, 6, 7]);
    assert!(store.opened.findings.is_empty(), "{:?}", store.opened.findings);
    for (i, segment) in store.opened.layout.segments().enumerate() {
        assert_eq!(segment.offset % 64, 0);
        assert_eq!(segment.raw.end % 64, 0);
        assert_eq!(segment.header.id(), i as u64 + 1, "ids never repeat");
        assert_eq!(u64::from(segment.header.alignment_pad.get()), segment.raw.end - segment.payload.end);
        assert_eq!((segment.header.checksum_algo, segment.header.flags.get()), (1, 0));
    }
    assert_eq!(storage.unsynced(), 0, "a commit ends with a sync");
}

/// Gathered pieces, small and larger than the buffer, come out as one payload.
#[test]
fn large_and_small_pieces_are_gathered() {
    let storage = MemStorage::default();
    let mut writer = Writer::create(&storage).expect("writer");
    let big: Vec<u8> = (0..3_000_000u32).map(|i| (i * 7 % 251) as u8).collect();
    let pieces: [&[u8]; 5] = [b"head", &big, b"", &big[..1000], b"tail"];
    let segment = writer.append(SegType::OVERLAY, &pieces).expect("append");
    writer.append(SegType::OVERLAY, &[]).expect("an empty payload is 64 bytes");
    writer.sync().expect("sync");
    let bytes = storage.live();
    assert_eq!(segment.payload_of(&bytes), pieces.concat());
    assert_eq!(segment.verify(&bytes), rvf_format::ChecksumState::Ok);
    assert_eq!(writer.end(), bytes.len() as u64);
    assert_eq!(bytes.len() as u64, segment.raw.end + 64);
}

/// A disk that fails after any number of operations, and then loses, tears and reorders what was not synced: the
/// store is always that of the last commit that returned, or of the one in flight.
#[test]
fn every_crash_leaves_a_whole_commit() {
    const COMMITS: u32 = 3;
    let whole = MemStorage::default();
    history(&whole, COMMITS).expect("history");
    for stop in 0..whole.operations() {
        let storage = MemStorage::default();
        storage.fail_after(stop);
        let error = history(&storage, COMMITS).expect_err("the disk fails");
        assert_eq!(error.family(), Family::Environment);
        let certain = Store::open(storage.durable());
        let certain_epoch = certain.opened.manifest.as_ref().map(|located| located.manifest.epoch);
        for seed in 0..200 {
            let store = Store::open(storage.crashed(seed));
            let Some(located) = &store.opened.manifest else {
                assert_eq!(certain_epoch, None, "stop {stop}, seed {seed}: a durable commit was lost");
                continue;
            };
            let epoch = located.manifest.epoch;
            assert!(certain_epoch.is_none_or(|certain| epoch >= certain), "stop {stop}, seed {seed}");
            assert!(epoch <= certain_epoch.map_or(0, |certain| certain + 1), "stop {stop}, seed {seed}");
            assert_eq!(
                store.live.len() as u32,
                epoch * 2,
                "stop {stop}, seed {seed}: rows of a commit are missing"
            );
            assert!(store.contents.blocks.iter().all(|block| block.verify(&store.bytes).usable()));
        }
    }
}

/// What a crash left can be written to again, and the torn tail goes.
#[test]
fn a_torn_tail_is_reclaimed_by_the_next_commit_only() {
    for (name, reclaimed, end) in [
        ("dmg_torn_mid.rvf", 69, 1728),
        ("dmg_torn_manifest_payload.rvf", 94, 2240),
        ("dmg_garbage_tail.rvf", 100, 2624),
        ("dmg_zero_tail.rvf", 0, 2924),
        ("frozen_twice.rvf", 0, 1024),
        // A header of another version is not ours to throw away.
        ("dmg_man_version2.rvf", 0, 2624),
    ] {
        let bytes = std::fs::read(golden("core").join(name)).expect("file");
        let before = Store::open(bytes.clone());
        let located = before.opened.manifest.clone().expect("manifest");
        let storage = MemStorage::new(bytes);
        let mut writer = Writer::new(&storage, &before.opened).expect("writer");
        assert_eq!((writer.reclaimed(), writer.end()), (reclaimed, end), "{name}");
        let mut next = located.manifest.clone();
        next.epoch += 1;
        let segment = writer.commit(&next).expect("commit");
        assert_eq!(segment.offset % 64, 0, "{name}");
        let after = Store::open(storage.live());
        let chosen = after.opened.manifest.expect("manifest");
        assert_eq!((chosen.segment.offset, chosen.manifest), (segment.offset, next), "{name}");
        assert_eq!(after.live, before.live, "{name}");
        assert_eq!(after.opened.reference_tail.torn_at, None, "{name}: the reference takes it too");
    }
}

#[test]
fn a_signed_store_is_not_written_to_by_accident() {
    let bytes = std::fs::read(golden("core/signed.rvf")).expect("file");
    let before = Store::open(bytes.clone());
    let storage = MemStorage::new(bytes.clone());
    let error = Writer::new(&storage, &before.opened).expect_err("signed");
    assert_eq!((error.family(), error.code()), (Family::Policy, Some(0x0305)));
    assert_eq!(storage.live(), bytes);
    let mut next = before.opened.manifest.clone().expect("manifest").manifest;
    let mut writer = Writer::unsigning(&storage, &before.opened).expect("asked for");
    assert_eq!(writer.reclaimed(), 4096);
    assert!(writer.commit(&next).expect_err("hash trailer").to_string().contains("hash trailer"));
    next.hashes = None;
    next.epoch += 1;
    writer.commit(&next).expect("commit");
    let after = Store::open(storage.live());
    assert_eq!(after.opened.layout.root_page, None);
    assert_eq!(after.live, before.live);

    // A page with a wrong CRC is no signature; it stays where it is.
    let bytes = std::fs::read(golden("core/dmg_signed_pagecrc.rvf")).expect("file");
    let before = Store::open(bytes.clone());
    let storage = MemStorage::new(bytes.clone());
    let mut writer = Writer::new(&storage, &before.opened).expect("not signed");
    writer.commit(&next).expect("commit");
    assert_eq!(storage.live()[..bytes.len()], bytes);
    let after = Store::open(storage.live());
    assert_eq!(after.opened.manifest.expect("manifest").manifest, next);
}

#[test]
fn a_failed_write_poisons_and_a_grown_file_is_noticed() {
    let storage = MemStorage::default();
    let mut writer = Writer::create(&storage).expect("writer");
    storage.fail_after(0);
    assert_eq!(writer.sync().expect_err("full disk").family(), Family::Environment);
    let error = writer.append(SegType::OVERLAY, &[b"x"]).expect_err("poisoned");
    assert!(matches!(error, Error::Poisoned { .. }), "{error}");

    let storage = MemStorage::default();
    let opened = recover::open(&[]);
    storage.write_at(0, b"somebody else").expect("write");
    assert!(matches!(Writer::new(&storage, &opened), Err(Error::Caller { .. })));
}

/// Payload bytes that look like a manifest, even a newer one, are no manifest.
#[test]
fn embedded_files_are_not_mistaken_for_the_store() {
    let inner = MemStorage::default();
    history(&inner, 5).expect("history");
    let storage = MemStorage::default();
    history(&storage, 2).expect("history");
    let opened = recover::open(&storage.live());
    let mut next = opened.manifest.clone().expect("manifest").manifest;
    let mut writer = Writer::new(&storage, &opened).expect("writer");
    let kernel = writer.append(SegType::KERNEL, &[&inner.live()]).expect("append");
    next.directory.push(dir_entry(&kernel));
    next.epoch = 3;
    writer.commit(&next).expect("commit");
    let tail = inner.live();
    let mut uncommitted = Writer::new(&storage, &recover::open(&storage.live())).expect("writer");
    uncommitted.append(SegType::KERNEL, &[&tail]).expect("append");
    uncommitted.sync().expect("sync");
    let whole = storage.live();

    let store = Store::open(whole.clone());
    assert_eq!(store.opened.manifest.as_ref().expect("manifest").manifest, next);
    assert_eq!(store.opened.tail.uncommitted_segments, 1);
    // Torn in the middle of the embedded file: its manifests are exposed, and still not taken.
    for cut in [1, 100, 500, 700, 1000] {
        let store = Store::open(whole[..whole.len() - cut].to_vec());
        assert_eq!(store.opened.manifest.as_ref().expect("manifest").manifest, next, "cut {cut}");
        assert!(store.opened.tail.torn_at.is_some(), "cut {cut}");
    }
    // The header of the committed kernel is lost: its inner manifests (epoch 5) lie past damage, but do not fit.
    let mut damaged = whole;
    damaged[kernel.offset as usize] ^= 1;
    let store = Store::open(damaged);
    assert_eq!(store.opened.manifest.as_ref().expect("manifest").manifest, next);
    assert_eq!(store.live.len(), 4);
}

/// A length that grew swallows later segments, the newest manifest among them; the hash tells.
#[test]
fn a_swallowing_header_is_disbelieved() {
    let storage = MemStorage::default();
    history(&storage, 3).expect("history");
    let mut bytes = storage.live();
    let whole = Store::open(bytes.clone());
    let second =
        whole.opened.layout.segments().filter(|s| s.kind() == SegType::VEC).nth(1).expect("VEC").clone();
    let rest = bytes.len() as u64 - second.payload.start;
    bytes[second.offset as usize + 0x10..][..8].copy_from_slice(&rest.to_le_bytes());
    let store = Store::open(bytes);
    assert_eq!(store.opened.manifest.as_ref().expect("manifest").manifest.epoch, 3);
    assert!(store.codes().contains(&"bad-length"));
    // The directory still knows the length, and the payload matches its hash.
    assert_eq!(store.live, whole.live);
}
