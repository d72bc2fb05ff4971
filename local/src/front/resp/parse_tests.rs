use super::*;
use proptest::prelude::*;

/// Feeds `bytes` in pieces of `size`, and gives the commands and what ended it.
fn read(bytes: &[u8], size: usize, limits: Limits) -> (Vec<Vec<Vec<u8>>>, Option<Wrong>) {
    let (mut parser, mut commands) = (Parser::new(limits), Vec::new());
    let mut input: Vec<u8> = Vec::new();
    for piece in bytes.chunks(size.max(1)) {
        input.extend_from_slice(piece);
        loop {
            match parser.next(&input) {
                Ok(Step::Command { from, end }) => {
                    commands.push(parser.args(&input[from..]).from(0).map(<[u8]>::to_vec).collect());
                    parser.forget();
                    input.drain(..end);
                }
                Ok(Step::Nothing(used)) => _ = input.drain(..used),
                Ok(Step::More(used)) => {
                    input.drain(..used);
                    break;
                }
                Err(wrong) => return (commands, Some(wrong)),
            }
        }
    }
    (commands, None)
}

fn written(command: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
    for arg in command {
        bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

#[test]
fn commands_are_read_in_both_forms_and_nothing_is_read_of_empty_ones() {
    let bytes = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n\r\n*0\r\n*-1\r\nset k  'a b'\r\nPING\n*1\r\n$0\r\n\r\n";
    let mut set = words("set k");
    set.push(b"a b".to_vec());
    let wanted = vec![words("GET k"), set, words("PING"), words("")];
    for size in [1, 2, 3, 7, 1000] {
        assert_eq!(read(bytes, size, Limits::OPEN), (wanted.clone(), None), "{size}");
    }
}

#[test]
fn what_is_wrong_is_refused_as_redis_does() {
    let table: [(&[u8], Wrong); 14] = [
        (b"*x\r\n", Wrong::Count),
        (b"*1048577\r\n", Wrong::Count),
        (b"*99999999999999999999\r\n", Wrong::Count),
        (b"*\r\n", Wrong::Count),
        (b"*1\r\n:1\r\n", Wrong::NoBulk(b':')),
        (b"*1\r\n$-1\r\n", Wrong::Length),
        (b"*1\r\n$x\r\n", Wrong::Length),
        (b"*1\r\n$1073741824\r\n", Wrong::Length),
        (b"*1\r\n$3\r\nabcde\r\n", Wrong::NoEnd),
        (b"set \"a\r\n", Wrong::Quotes),
        (b"GET / HTTP/1.1\r\n", Wrong::Http),
        (b"POST / HTTP/1.1\r\n", Wrong::Http),
        (b"Host: localhost\r\n", Wrong::Http),
        (b"*1\r\n$1\n", Wrong::Length),
    ];
    for (bytes, wrong) in table {
        for size in [1, 1000] {
            let (commands, ended) = read(bytes, size, Limits::OPEN);
            assert_eq!((commands.len(), ended), (0, Some(wrong.clone())), "{}", bytes.escape_ascii());
        }
    }
    assert_eq!(read(&vec![b'a'; 70_000], 1000, Limits::OPEN).1, Some(Wrong::Inline));
    let endless = [b"*".to_vec(), vec![b'0'; 100]].concat();
    assert_eq!(read(&endless, 1000, Limits::OPEN).1, Some(Wrong::LengthLine));
}

#[test]
fn a_stranger_may_have_few_and_small_arguments() {
    assert_eq!(read(b"*11\r\n", 100, Limits::STRANGER).1, Some(Wrong::Count));
    assert_eq!(read(b"*1\r\n$16385\r\n", 100, Limits::STRANGER).1, Some(Wrong::Length));
}

#[test]
fn a_length_that_no_bytes_stand_behind_reserves_next_to_nothing() {
    let mut parser = Parser::new(Limits::OPEN);
    let head = b"*2\r\n$3\r\nSET\r\n$100000000\r\n";
    assert_eq!(parser.next(head), Ok(Step::More(head.len())));
    assert!(parser.is_within());
    assert!(parser.held() <= 1024, "{}", parser.held());
    assert_eq!(parser.next(b"x"), Ok(Step::More(1)));
    assert!(parser.held() <= 2 * RESERVE, "{}", parser.held());
}

#[test]
fn the_places_of_many_small_arguments_are_counted_as_held() {
    let mut parser = Parser::new(Limits::OPEN);
    let bytes = [b"*65536\r\n".to_vec(), b"$0\r\n\r\n".repeat(60_000)].concat();
    assert_eq!(parser.next(&bytes), Ok(Step::More(0)));
    assert!(parser.held() >= 60_000 * size_of::<Arg>(), "{}", parser.held());
    let large = [bytes, format!("${}\r\n", LARGE + 1).into_bytes()].concat();
    assert_eq!(parser.next(&large), Ok(Step::More(large.len())));
    assert!(parser.held() >= 60_000 * size_of::<Bytes>(), "{}", parser.held());
}

#[test]
fn all_arguments_together_have_a_limit() {
    let limits = Limits { request: 10, ..Limits::OPEN };
    assert_eq!(read(b"*2\r\n$6\r\nabcdef\r\n$5\r\n", 1000, limits).1, Some(Wrong::Length));
}

#[test]
fn a_large_argument_has_memory_exactly_as_long_as_it_is() {
    let large = vec![7; 3 * RESERVE + 5];
    let command = vec![
        b"SET".to_vec(),
        b"k".to_vec(),
        large.clone(),
        b"PX".to_vec(),
        vec![8; LARGE + 1],
        b"9".to_vec(),
    ];
    for size in [1 << 20, 65_536, 4097] {
        assert_eq!(read(&written(&command), size, Limits::OPEN), (vec![command.clone()], None), "{size}");
    }
    let mut parser = Parser::new(Limits::OPEN);
    let bytes = written(&command[..3]);
    let step = parser.next(&bytes).expect("right");
    let Step::Command { from, end } = step else { panic!("{step:?}") };
    assert_eq!(end, bytes.len());
    let kept = parser.args(&bytes[from..]).bytes(2);
    parser.forget();
    assert!(kept.is_unique() && Vec::from(kept).capacity() == large.len());
}

#[test]
fn a_length_of_many_zeros_is_refused_alike_however_it_is_cut() {
    for zeros in [60, 62, 63, 64, 65, 66, 100] {
        let bytes = [b"*".to_vec(), b"0".repeat(zeros), b"1\r\n$4\r\nPING\r\n".to_vec()].concat();
        let whole = read(&bytes, 1000, Limits::OPEN);
        for size in [1, 2, 7, 64, 65, 66, 67, 68] {
            assert_eq!(read(&bytes, size, Limits::OPEN), whole, "{zeros} zeros, {size} at a time");
        }
        assert_eq!(whole.1.is_some(), zeros >= LENGTH_LINE_MAX, "{zeros}");
    }
}

fn any_command() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let small = proptest::collection::vec(any::<u8>(), 0..40);
    let large = (LARGE - 1..LARGE + 3, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]);
    let arg = prop_oneof![20 => small, 1 => large];
    proptest::collection::vec(arg, 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read_back_however_it_is_cut(
        commands in proptest::collection::vec(any_command(), 1..6),
        size in prop_oneof![1..9_usize, 1000..100_000_usize],
    ) {
        let bytes: Vec<u8> = commands.iter().flat_map(|command| written(command)).collect();
        let size = size.max(bytes.len() / 5000);
        prop_assert_eq!(read(&bytes, size, Limits::OPEN), (commands, None));
    }

    #[test]
    fn any_bytes_are_borne_and_read_alike_however_they_are_cut(
        bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'*'), Just(b'$'), Just(b'\r'), Just(b'\n'), Just(b'1')], 0..200),
        size in 1..50_usize,
    ) {
        prop_assert_eq!(read(&bytes, size, Limits::OPEN), read(&bytes, 1000, Limits::OPEN));
    }
}
