use super::*;

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
        } else if let Some(unit) = space.take(bytes) {
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
    let (row, chunk, bucket) =
        (space.take(100).unwrap(), space.take_chunk().unwrap(), space.take_bucket().unwrap());
    let kinds: Vec<u32> = (0..100 * PAGE_UNITS + 10).filter(|unit| space.kind(*unit) == Kind::Row).collect();
    assert_eq!(kinds, [row]);
    let index: Vec<u32> = (0..u32::from(u16::MAX)).filter(|unit| space.kind(*unit) == Kind::Index).collect();
    let mut both = vec![chunk * PAGE_UNITS, bucket];
    both.sort_unstable();
    assert_eq!(index, both);
    assert_eq!(space.kind(u32::MAX), Kind::None);
}

#[test]
fn the_cheapest_piece_has_nothing_of_the_index_and_nothing_held() {
    let mut space = Space::new(100);
    let rows: Vec<u32> = std::iter::from_fn(|| space.take(20_000)).collect();
    let chunkless = space.cheapest(60_000, |unit| rows[..8].contains(&unit)).unwrap();
    assert!(chunkless.0 * PAGE_UNITS >= rows[8]);
    let inside = space.rows_in(chunkless.0, chunkless.1);
    inside.iter().for_each(|unit| space.give_back(*unit));
    assert!(space.take(60_000).is_some());
    assert_eq!(space.cheapest(60_000, |_| true), None);
    space.check();
}
