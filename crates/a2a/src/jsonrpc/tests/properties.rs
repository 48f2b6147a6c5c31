//! What holds for any request.

use super::*;
use proptest::prelude::*;

const WHOLE: &str = r#"{"jsonrpc":"2.0","id":"a","method":"SendMessage","params":{"tenant":"x","message":{"messageId":"m","role":"ROLE_USER","contextId":"c","parts":[{"text":"h\u00e9"},{"data":{"a":[1,2.0]}},{"raw":"aGk="}],"metadata":{"urn:convoke:ext:capability:v1":{"name":"x"}},"extensions":["u"],"referenceTaskIds":["t"]},"configuration":{"historyLength":1,"acceptedOutputModes":["a"]}}}"#;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn decode_survives_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        prop_assert!(decode(&headers(), None, &bytes.into()).is_err());
    }

    /// Whatever is decoded from a damaged request is answered with JSON, and so is what is not.
    #[test]
    fn decode_survives_damage(edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..4)) {
        let mut bytes = WHOLE.as_bytes().to_vec();
        for (to, from) in edits {
            let copied = bytes[from.index(bytes.len())];
            let to = to.index(bytes.len());
            bytes[to] = copied;
        }
        let answer = match decode(&headers(), None, &bytes.into()) {
            Ok(Call { id, operation: Operation::SendMessage(send), .. }) => {
                let _named = crate::capability::named_capability(&send.message);
                encode_message(&id, &send.message)
            }
            Ok(call) => panic!("{call:?}"),
            Err(rejection) => encode_fault(rejection.id.as_ref(), &rejection.fault),
        };
        let bounds = ScanLimits { string_bytes_max: usize::MAX, ..ScanLimits::RESPONSE };
        scan(&answer, &bounds).unwrap();
    }

    /// The cursor alone, on what no scan has seen.
    #[test]
    fn the_reader_survives_what_is_not_json(text in ".{0,40}", cut in any::<prop::sample::Index>()) {
        let cut = &WHOLE[..WHOLE.floor_char_boundary(cut.index(WHOLE.len()))];
        for text in [text.as_str(), cut] {
            let mut problems = crate::reader::Problems::default();
            let at = &crate::reader::Path::Root;
            let _read = crate::read::message(&mut Reader::new(text), at, &mut problems);
            let _read = crate::read::task(&mut Reader::new(text), at, &mut problems);
            let _read = envelope(text);
            prop_assert!(crate::fault::read(&mut Reader::new(text), StatusCode::OK).is_none());
        }
    }
}
