use super::*;

/// As the daemon takes it: what is free, else what is fresh.
fn take(space: &mut Space, need: Need) -> Option<u32> {
    loop {
        if let Some(unit) = space.take(need) {
            return Some(unit);
        }
        let left = space.fresh_without(need)?;
        space.break_in(left);
    }
}

#[test]
fn classes_lose_an_eighth_at_most() {
    let classes = Classes::up_to(8192);
    for bytes in 33..8192 {
        let size = classes.0[classes.of(bytes).unwrap()];
        assert!(size >= bytes && size - bytes <= (bytes / 8).max(15), "{bytes} bytes take {size}");
        assert!(size.is_multiple_of(UNIT_BYTES));
        assert!(size < 4096 || size.is_multiple_of(64), "places of {size} bytes begin off a cache line");
    }
    assert_eq!(classes.of(8193), None);
}

#[test]
fn whatever_is_taken_and_given_back_adds_up() {
    let mut space = Space::new(2000);
    let mut taken = Vec::new();
    let mut random = 99_u64;
    for round in 0..if cfg!(miri) { 300 } else { 20_000 } {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let bytes = [40, 64, 200, 5000, 9000, 100_000][(random >> 40) as usize % 6];
        if (random >> 33).is_multiple_of(3) && !taken.is_empty() {
            let (unit, _) = taken.swap_remove((random >> 20) as usize % taken.len());
            space.give_back(unit);
            assert_eq!(space.kind(unit), Kind::None);
        } else if let Some(unit) = take(&mut space, Need::Row(bytes)) {
            assert_eq!(space.kind(unit), Kind::Row);
            taken.push((unit, bytes));
        }
        if round % 1000 == 0 {
            space.check();
        }
    }
    taken.sort_unstable();
    for pair in taken.windows(2) {
        let ((first, bytes), (second, _)) = (pair[0], pair[1]);
        assert!(u64::from(first) * 16 + bytes <= u64::from(second) * 16, "two rows overlap");
    }
    taken.into_iter().for_each(|(unit, _)| space.give_back(unit));
    space.check();
    assert_eq!(space.bytes(), PAGE_BYTES as u64);
}

#[test]
fn only_where_something_begins_something_is() {
    let mut space = Space::new(100);
    let mut taken = |need| take(&mut space, need).unwrap();
    let (row, chunk, bucket) = (taken(Need::Row(100)), taken(Need::Chunk), taken(Need::Bucket));
    let kinds: Vec<u32> = (0..100 * PAGE_UNITS + 10).filter(|unit| space.kind(*unit) == Kind::Row).collect();
    assert_eq!(kinds, [row]);
    let index: Vec<u32> = (0..u32::from(u16::MAX)).filter(|unit| space.kind(*unit) == Kind::Index).collect();
    let mut both = vec![chunk, bucket];
    both.sort_unstable();
    assert_eq!(index, both);
    assert_eq!(space.kind(u32::MAX), Kind::None);
}

#[test]
fn the_cheapest_piece_has_nothing_of_the_index_and_nothing_held() {
    let mut space = Space::new(100);
    let chunk = take(&mut space, Need::Chunk).unwrap();
    let rows: Vec<u32> = std::iter::from_fn(|| take(&mut space, Need::Row(20_000))).collect();
    let (from, to) = space.piece_for(Need::Row(60_000), rows[..8].iter().copied()).unwrap();
    assert!(from * PAGE_UNITS >= rows[8] && to * PAGE_UNITS <= chunk, "{from} {to}");
    let inside: Vec<u32> = space.rows_in(from, to).collect();
    inside.iter().for_each(|unit| space.give_back(*unit));
    assert!(space.take(Need::Row(60_000)).is_some());
    assert_eq!(space.piece_for(Need::Row(60_000), space.rows_in(1, 100).collect::<Vec<_>>()), None);
    space.check();
}

#[test]
fn the_index_grows_from_the_end_and_parts_nothing() {
    let mut space = Space::new(1000);
    let mut index = Vec::new();
    for round in 0..20 {
        (0..100).for_each(|_| _ = take(&mut space, Need::Row(200)).unwrap());
        index.push(take(&mut space, [Need::Chunk, Need::Bucket][round % 2]).unwrap());
        space.check();
    }
    let first = index.iter().min().unwrap() / PAGE_UNITS;
    assert!(first >= 1000 - 20 * 16, "the index begins at {first}");
    // All is full: the last piece that can go goes for it, and it lies beside the index again.
    while take(&mut space, Need::Row(200)).is_some() {}
    assert!(space.fresh().is_empty() && space.take(Need::Chunk).is_none());
    let (from, to) = space.piece_for(Need::Chunk, []).unwrap();
    assert!(to == first && to - from < 32, "{from} {to}");
    let inside: Vec<u32> = space.rows_in(from, to).collect();
    inside.iter().for_each(|unit| space.give_back(*unit));
    space.lower_top(to - space.pages_for(Need::Chunk));
    assert_eq!(space.take(Need::Chunk), Some((first - 16) * PAGE_UNITS));
    space.check();
    // Whoever is held is not made to go for it.
    let held: Vec<u32> = space.rows_in(500, first - 16).collect();
    let (_, to) = space.piece_for(Need::Chunk, held).unwrap();
    assert!(to <= 500 + 16, "{to}");
}

#[test]
fn what_is_fresh_is_taken_from_both_ends_and_no_more_of_it_than_needed() {
    let mut space = Space::new(200);
    take(&mut space, Need::Chunk).unwrap();
    assert_eq!(space.fresh(), 1..184);
    take(&mut space, Need::Row(40_000)).unwrap();
    assert_eq!(space.fresh(), 11..184);
    let last = take(&mut space, Need::Row(8_200)).unwrap();
    space.give_back(last);
    assert_eq!(space.fresh(), 14..184);
    // Behind a free run so much less is needed.
    take(&mut space, Need::Row(20_000)).unwrap();
    assert_eq!(space.fresh(), 16..184);
    // Where it does not do, all of it goes to the rows.
    assert_eq!(take(&mut space, Need::Row(700_000)), None);
    assert!(space.fresh().is_empty() && space.has_room(680_000) && !space.has_room(700_000));
    space.check();
}

#[test]
fn a_piece_is_found_by_looking_at_each_block_once() {
    let mut space = Space::new(64_000);
    while take(&mut space, Need::Row(16_000)).is_some() {}
    space.looks.set(0);
    assert!(space.piece_for(Need::Row(10_000_000), []).is_some());
    assert!(space.looks.get() <= 64_000 / 4 + 1, "{} looks at 16,000 runs", space.looks.get());
}
