//! Tokenizers against Hugging Face's `tokenizers`: every way that a directory describes one, over generated and adversarial text.

use crate::common::{golden_dir, root};
use bitfit::data::{Encoded, Tokenizer};
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tokenizers::AddedToken;
use tokenizers::Tokenizer as Oracle;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::utils::truncation::{TruncationParams, TruncationStrategy, truncate_encodings};

/// A pseudorandom sequence (Marsaglia's xorshift, 2003), the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// Blocks whose characters have rules of their own somewhere.
const BLOCKS: [(u32, u32); 26] = [
    (0x00, 0x20),
    (0x21, 0x7F),
    (0x7F, 0x100),
    (0x100, 0x250),
    (0x250, 0x300),
    (0x300, 0x370),
    (0x370, 0x530),
    (0x590, 0x700),
    (0x900, 0xE00),
    (0xE00, 0x1000),
    (0x1100, 0x1200),
    (0x1AB0, 0x1B00),
    (0x1DC0, 0x2000),
    (0x2000, 0x2070),
    (0x2070, 0x2200),
    (0x2600, 0x2800),
    (0x3000, 0x3100),
    (0x3400, 0x3500),
    (0x4E00, 0x4F00),
    (0xAC00, 0xAD00),
    (0xE000, 0xE010),
    (0xF900, 0xFB50),
    (0xFE00, 0xFF00),
    (0xFFF0, 0x10000),
    (0x1F300, 0x1F650),
    (0x2B700, 0x2BA00),
];

const ODD: [&str; 30] = [
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "[UNK]",
    "[PAD]",
    "[sep]",
    "[ SEP ]",
    "<s>",
    "</s>",
    "<mask>",
    " <mask>",
    "<pad>",
    "<unk>",
    "</s></s>",
    "\u{2028}",
    "\u{2029}",
    "\u{feff}",
    "\u{200d}",
    "\u{fffd}",
    "\0",
    "\t\n\r ",
    "  ",
    "'s",
    "'ll",
    "n't",
    "##ing",
    "e\u{301}",
    "\u{130}",
    "\u{1f468}\u{200d}\u{1f469}",
    "ΑΣ",
];

/// Lines of words, of characters from every block, of special tokens, and of what else has surprised somebody.
fn corpus(lines: usize, words: &[String]) -> Vec<String> {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let line = |_| {
        let mut line = String::new();
        for _ in 0..random.below(14) {
            match random.below(10) {
                0..=4 => line += random.pick::<String>(words).as_str(),
                5 => line += random.pick::<&str>(&ODD),
                6 => line += &random.below(100_000).to_string(),
                7 => {
                    let &(from, to) = random.pick(&BLOCKS);
                    for _ in 0..=random.below(6) {
                        let code = from + random.below((to - from) as usize) as u32;
                        line.extend(char::from_u32(code));
                    }
                }
                8 => line += &random.pick::<String>(words).as_str().to_uppercase(),
                _ if random.below(20) == 0 => line += &"x".repeat(90 + random.below(20)),
                _ => line += random.pick::<String>(words).as_str().trim_start_matches("##"),
            }
            if random.below(6) > 0 {
                line.push(' ');
            }
        }
        line
    };
    (0..lines).map(line).collect()
}

fn words_of(dir: &Path) -> Vec<String> {
    let file = if dir.join("vocab.txt").exists() { "vocab.txt" } else { "merges.txt" };
    let text = std::fs::read_to_string(dir.join(file)).unwrap();
    text.lines().map(|line| line.replace(['Ġ', ' '], "")).filter(|word| !word.is_empty()).collect()
}

fn oracle(dir: &Path) -> Oracle {
    let mut oracle = Oracle::from_file(dir.join("tokenizer.json")).unwrap();
    oracle.with_padding(None).with_truncation(None).unwrap();
    oracle
}

fn ids_of(oracle: &Oracle, text: &str) -> Vec<u32> {
    oracle.encode_fast(text, true).unwrap().get_ids().to_vec()
}

#[track_caller]
fn same(ours: &Tokenizer, oracle: &Oracle, texts: &[String]) {
    let different: Vec<_> = texts
        .par_iter()
        .filter(|text| ours.encode(text, None, usize::MAX).ids != ids_of(oracle, text))
        .collect();
    if let Some(text) = different.first() {
        let (a, b) = (ours.encode(text, None, usize::MAX).ids, ids_of(oracle, text));
        panic!(
            "{} of {} texts differ: {text:?}: {a:?}, expected {b:?}",
            different.len(),
            texts.len()
        );
    }
}

/// A directory with `vocab.txt` and its options, and beside it one with the `tokenizer.json` that Hugging Face makes of them.
fn bert_dirs(folder: &Path, vocab: &str, normalizer: BertNormalizer) -> (PathBuf, PathBuf) {
    let (plain, json) = (folder.join("plain"), folder.join("json"));
    std::fs::create_dir_all(&plain).unwrap();
    std::fs::create_dir_all(&json).unwrap();
    std::fs::write(plain.join("vocab.txt"), vocab).unwrap();
    let config = serde_json::json!({
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": normalizer.lowercase,
        "strip_accents": normalizer.strip_accents,
        "tokenize_chinese_chars": normalizer.handle_chinese_chars,
    });
    std::fs::write(plain.join("tokenizer_config.json"), config.to_string()).unwrap();
    let model = WordPiece::from_file(plain.join("vocab.txt").to_str().unwrap()).build().unwrap();
    let mut oracle = Oracle::new(model);
    let id = |token: &str| (token.to_owned(), oracle.token_to_id(token).unwrap());
    let ends = BertProcessing::new(id("[SEP]"), id("[CLS]"));
    oracle.with_normalizer(Some(normalizer)).unwrap();
    oracle.with_pre_tokenizer(Some(BertPreTokenizer));
    oracle.with_post_processor(Some(ends));
    let special = ["[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"];
    oracle.add_special_tokens(special.map(|token| AddedToken::from(token, true))).unwrap();
    oracle.save(json.join("tokenizer.json"), false).unwrap();
    (plain, json)
}

/// A vocabulary in which few words are unknown: every character of the corpus and many of its pairs.
fn rich_vocabulary(texts: &[String]) -> String {
    let mut pieces = BTreeSet::new();
    for text in texts {
        let letters: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
        for (i, window) in letters.windows(2).enumerate() {
            pieces.insert(window[0].to_string());
            if i % 3 == 0 {
                pieces.insert(window.iter().collect());
                pieces.insert(window.iter().collect::<String>().to_lowercase());
            }
        }
    }
    let mut vocabulary = String::from("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n");
    for piece in &pieces {
        vocabulary += &format!("{piece}\n##{piece}\n");
    }
    vocabulary
}

#[test]
fn minilm_is_hugging_faces_to_the_last_id() {
    let model = root().join("models/all-MiniLM-L6-v2");
    let (ours, oracle) = (Tokenizer::read(&model).unwrap(), oracle(&model));
    same(&ours, &oracle, &corpus(100_000, &words_of(&model)));
    // Every code point of the planes that have characters: inside a word, alone, and beside an accent.
    let codes = (0..0x3_2000).chain(0xE_0000..0xE_1000).chain(0xF_0000..0xF_0100);
    let each: Vec<String> =
        codes.filter_map(char::from_u32).map(|c| format!("ab{c}cd {c} e{c}\u{301}")).collect();
    same(&ours, &oracle, &each);
}

#[test]
fn every_option_of_bert_is_obeyed_whichever_file_says_it() {
    let texts = corpus(100_000, &words_of(&root().join("models/all-MiniLM-L6-v2")));
    let vocabulary = rich_vocabulary(&texts[..2000]);
    for (lower, strip, chinese) in [
        (false, None, true),
        (true, Some(false), true),
        (false, Some(true), false),
        (true, None, false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let normalizer = BertNormalizer::new(true, chinese, strip, lower);
        let (plain, json) = bert_dirs(folder.path(), &vocabulary, normalizer);
        let oracle = oracle(&json);
        let (from_vocab, from_json) =
            (Tokenizer::read(&plain).unwrap(), Tokenizer::read(&json).unwrap());
        same(&from_vocab, &oracle, &texts);
        same(&from_json, &oracle, &texts[..1000]);
        assert_eq!(from_vocab.fingerprint, from_json.fingerprint);
        // What tokenizer_config.json says aloud wins over what is in tokenizer.json.
        std::fs::write(
            json.join("tokenizer_config.json"),
            format!("{{\"do_lower_case\": {}}}", !lower),
        )
        .unwrap();
        assert_ne!(Tokenizer::read(&json).unwrap().fingerprint, from_json.fingerprint);
    }
}

#[test]
fn roberta_is_hugging_faces_whichever_file_says_it() {
    let dir = golden_dir().join("tiny-roberta");
    let texts = corpus(100_000, &words_of(&dir));
    let alone = tempfile::tempdir().unwrap();
    std::fs::copy(dir.join("tokenizer.json"), alone.path().join("tokenizer.json")).unwrap();
    let plain = tempfile::tempdir().unwrap();
    for name in ["vocab.json", "merges.txt", "tokenizer_config.json"] {
        std::fs::copy(dir.join(name), plain.path().join(name)).unwrap();
    }
    let (from_json, from_merges) =
        (Tokenizer::read(alone.path()).unwrap(), Tokenizer::read(plain.path()).unwrap());
    let mut oracle = oracle(&dir);
    same(&from_json, &oracle, &texts);
    same(&from_merges, &oracle, &texts);
    let each: Vec<String> =
        (0..0x3_2000).filter_map(char::from_u32).map(|c| format!("ab{c}cd {c} {c}{c}")).collect();
    same(&from_json, &oracle, &each);
    // A prefix space, by tokenizer_config.json or by tokenizer.json.
    let mut value: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(dir.join("tokenizer.json")).unwrap())
            .unwrap();
    value["pre_tokenizer"]["add_prefix_space"] = true.into();
    std::fs::write(alone.path().join("tokenizer.json"), value.to_string()).unwrap();
    oracle = self::oracle(alone.path());
    same(&Tokenizer::read(alone.path()).unwrap(), &oracle, &texts[..5000]);
}

#[test]
fn pairs_are_cut_as_hugging_face_cuts_them() {
    for dir in [root().join("models/all-MiniLM-L6-v2"), golden_dir().join("tiny-roberta")] {
        let texts = corpus(2000, &words_of(&dir));
        let (ours, oracle) = (Tokenizer::read(&dir).unwrap(), oracle(&dir));
        let special = if dir.ends_with("tiny-roberta") { 4 } else { 3 };
        for length in [4, 5, 7, 8, 16, 33, 64] {
            let truncation = TruncationParams {
                max_length: length - special,
                strategy: TruncationStrategy::LongestFirst,
                ..TruncationParams::default()
            };
            for pair in texts.windows(2) {
                // As transformers 4 does. (The newest tokenizers stop reading a text early, and then count it as shorter.)
                let [a, b] = [0, 1].map(|i| oracle.encode_fast(pair[i].as_str(), false).unwrap());
                let (a, b) = truncate_encodings(a, Some(b), &truncation).unwrap();
                let expected = oracle.post_process(a, b, true).unwrap();
                let Encoded { ids, first } = ours.encode(&pair[0], Some(&pair[1]), length);
                assert_eq!(ids, expected.get_ids(), "{pair:?} to {length}");
                let types: Vec<u32> = (0..ids.len()).map(|i| u32::from(i >= first)).collect();
                assert_eq!(types, expected.get_type_ids(), "{pair:?}");
                let whole = oracle.encode_fast(pair[0].as_str(), false).unwrap();
                let kept = whole.get_ids().iter().take(length - 2);
                let single = ours.encode(&pair[0], None, length).ids;
                assert!(single[1..single.len() - 1].iter().eq(kept), "{:?}", pair[0]);
            }
        }
    }
}

#[test]
fn added_tokens_are_found_as_hugging_face_finds_them() {
    for dir in [root().join("models/all-MiniLM-L6-v2"), golden_dir().join("tiny-roberta")] {
        let mut oracle = oracle(&dir);
        let token = |text: &str| AddedToken::from(text, false);
        oracle
            .add_tokens([
                token("Brand"),
                token("New York").normalized(false),
                token("ab").single_word(true),
                token("left").lstrip(true),
                token("right").rstrip(true).normalized(false),
                token("ÉTÉ"),
            ])
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        oracle.save(folder.path().join("tokenizer.json"), false).unwrap();
        let ours = Tokenizer::read(folder.path()).unwrap();
        let mut words = words_of(&dir);
        for word in
            ["Brand", "brand", "New York", "ab", "left", "right", "été", "ÉTÉ", " left", "right  "]
        {
            words.extend(vec![word.to_owned(); 2000]);
        }
        same(&ours, &oracle, &corpus(20_000, &words));
        assert!(ours.vocab_size() > Tokenizer::read(&dir).unwrap().vocab_size());
    }
}

#[test]
fn long_texts_cost_what_is_kept_of_them() {
    for dir in [root().join("models/all-MiniLM-L6-v2"), golden_dir().join("tiny-roberta")] {
        let ours = Tokenizer::read(&dir).unwrap();
        let began = std::time::Instant::now();
        // Neither a book nor a word of a megabyte takes its square's time.
        for text in [
            "a good film and a bad one ".repeat(200_000),
            "ab".repeat(500_000),
            "\u{301}".repeat(300_000),
        ] {
            let whole = ours.encode(&text, None, usize::MAX).ids;
            let cut = ours.encode(&text, None, 128).ids;
            assert_eq!(cut[..cut.len() - 1], whole[..cut.len() - 1]);
        }
        assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
    }
}
