//! Rows, labels, tokens, order, batches.

use crate::common::{Scratch, golden_dir};
use bitfit::data::{
    Batch, Columns, Encoded, LabelColumns, Labels, Row, Target, Tokenizer, epoch_order, read,
    split_by_class,
};
use bitfit::models::TaskType;

fn columns() -> Columns {
    let labels = LabelColumns::One { name: "label".into(), separator: None };
    Columns { text: "text".into(), text_pair: None, labels, header: true, skip_bad_rows: false }
}

fn texts(rows: &[Row]) -> Vec<(&str, &str)> {
    rows.iter()
        .map(|row| (row.text.as_str(), row.labels().first().map_or("-", String::as_str)))
        .collect()
}

#[test]
fn every_format_gives_the_same_rows() {
    let scratch = Scratch::new();
    let expected = [("said \"yes\", twice", "a"), ("it's\u{2028}two words", "b")];
    let csv = scratch.write(
        "x.csv",
        "\u{feff}id,label,text\r\n1,a,\"said \"\"yes\"\", twice\"\r\n2,b,it's\u{2028}two words\r\n",
    );
    assert_eq!(texts(&read(&csv, &columns()).unwrap()), expected);
    // Quotes are letters in a TSV, and one that is not closed eats no rows.
    let tsv = scratch.write(
        "x.tsv",
        "\u{feff}text\tlabel\r\nsaid \"yes\", twice\ta\r\n\r\nit's\u{2028}two words\tb",
    );
    let rows = read(&tsv, &columns()).unwrap();
    assert_eq!(texts(&rows), expected);
    assert_eq!(rows[1].place.line, Some(4));
    let tsv = scratch.write("q.tsv", "text\tlabel\n\"open\ta\nnext\tb\n");
    assert_eq!(read(&tsv, &columns()).unwrap().len(), 2);
    // An empty line is a text where there is no other column.
    let texts_alone = Columns { labels: LabelColumns::None, ..columns() };
    let tsv = scratch.write("one.TSV", "text\na\n\nb\n");
    assert_eq!(read(&tsv, &texts_alone).unwrap().len(), 3);
    let jsonl = scratch.write("x.jsonl", "{\"text\": \"said \\\"yes\\\", twice\", \"label\": \"a\"}\n\n{\"label\": \"b\", \"text\": \"it's\u{2028}two words\"}\n");
    assert_eq!(texts(&read(&jsonl, &columns()).unwrap()), expected);
    scratch.write("folder/a/1.txt", expected[0].0);
    scratch.write("folder/b/1.txt", expected[1].0);
    scratch.write("folder/b/notes.md", "not a row");
    scratch.write("folder/README.txt", "not a row");
    scratch.write("folder/.git/1.txt", "not a row");
    assert_eq!(texts(&read(&scratch.path("folder"), &columns()).unwrap()), expected);
    // Of aclImdb, the unlabelled reviews are no class; of any folder, those that are asked for.
    for name in ["imdb/neg/0_1.txt", "imdb/pos/0_9.txt", "imdb/unsup/0_0.txt", "imdb/odd/0.txt"] {
        scratch.write(name, "text");
    }
    let labels = |columns: &Columns| -> Vec<String> {
        read(&scratch.path("imdb"), columns)
            .unwrap()
            .into_iter()
            .flat_map(|row| row.labels.unwrap())
            .collect()
    };
    assert_eq!(labels(&columns()), ["neg", "odd", "pos"]);
}

#[test]
fn what_is_wrong_is_named_with_file_and_line() {
    let scratch = Scratch::new();
    let refuse = |name: &str, bytes: &[u8], parts: &[&str]| {
        let error = read(&scratch.write(name, bytes), &columns()).unwrap_err().to_string();
        for part in parts.iter().chain([&name]) {
            assert!(error.contains(part), "expected {part:?} in: {error}");
        }
    };
    refuse("few.tsv", b"text\tlabel\nfine\ta\nshort\n", &["few.tsv:3", "1 columns, expected 2"]);
    refuse("few.csv", b"text,label\nfine,a\nshort\n", &["few.csv:3", "1 columns, expected 2"]);
    refuse("many.csv", b"text,label\na,b,c\n", &["many.csv:2", "3 columns, expected 2"]);
    refuse(
        "column.csv",
        b"sentence,label\na,b\n",
        &["column.csv:1", "\"text\"", "text_column", "sentence, label"],
    );
    refuse("column.tsv", b"text\tclass\na\tb\n", &["\"label\"", "label_column", "text, class"]);
    refuse("latin.tsv", b"text\tlabel\nfine\ta\nna\xefve\tb\n", &["latin.tsv:3", "not UTF-8"]);
    refuse("latin.csv", b"text,label\nfine,a\nna\xefve,b\n", &["latin.csv:3", "not UTF-8"]);
    refuse("latin.jsonl", b"{\"text\": \"na\xefve\"}\n", &["latin.jsonl:1", "not UTF-8"]);
    refuse(
        "broken.jsonl",
        b"{\"text\": \"a\", \"label\": 1}\n{\n",
        &["broken.jsonl:2", "not JSON"],
    );
    refuse("array.jsonl", b"[1]\n", &["array.jsonl:1", "not a JSON object"]);
    refuse(
        "field.jsonl",
        b"{\"text\": \"a\", \"class\": 1}\n",
        &["field.jsonl:1", "\"label\"", "text, class"],
    );
    refuse(
        "type.jsonl",
        b"{\"text\": [\"a\"], \"label\": 1}\n",
        &["type.jsonl:1", "\"text\"", "expected a text"],
    );
    refuse("label.tsv", b"text\tlabel\nfine\ta\nnone\t \n", &["label.tsv:3", "no label"]);
    refuse("label.csv", b"text,label\nfine,\n", &["label.csv:2", "no label"]);
    refuse("label.jsonl", b"{\"text\": \"a\", \"label\": \"\"}\n", &["label.jsonl:1", "no label"]);
    refuse(
        "twice.csv",
        b"text,label,text\na,b,c\n",
        &["twice.csv:1", "more than one column", "text"],
    );
    for name in ["empty.csv", "empty.tsv"] {
        refuse(name, b"", &["\"text\""]);
    }
    for (name, header) in
        [("none.csv", "text,label\n"), ("none.tsv", "text\tlabel\n"), ("none.jsonl", "\n")]
    {
        refuse(name, header.as_bytes(), &["no rows"]);
    }
    refuse("data.xlsx", b"", &[".csv, .tsv, .jsonl"]);
    std::fs::create_dir(scratch.path("void")).unwrap();
    let error = read(&scratch.path("void"), &columns()).unwrap_err().to_string();
    assert!(error.contains("folder for each class"), "{error}");
    let error = read(&scratch.path("nowhere.csv"), &columns()).unwrap_err().to_string();
    assert!(error.contains("nowhere.csv") && error.contains("No such file"), "{error}");
}

#[test]
fn labels_go_by_name_or_number() {
    let scratch = Scratch::new();
    let rows = |text: &str| {
        read(&scratch.write("x.tsv", format!("text\tlabel\n{text}")), &columns()).unwrap()
    };
    let from = |text: &str| {
        Labels::from_rows(TaskType::Classification, &scratch.path("x.tsv"), &rows(text))
            .map(|labels| labels.names)
    };
    assert_eq!(from("a\tpos\nb\tneg\n").unwrap(), ["neg", "pos"]);
    assert_eq!(
        from("a\t10\nb\t9\nc\t2\n").unwrap(),
        ["2", "9", "10"],
        "numbers are sorted as numbers"
    );
    let error = from("a\tpos\nb\tpos\n").unwrap_err().to_string();
    assert!(error.contains("one class only") && error.contains("pos"), "{error}");
    let labels = Labels { names: ["neg", "pos"].map(String::from).into() };
    let targets =
        |labels: &Labels, text: &str| labels.targets(TaskType::Classification, &rows(text));
    let [one, zero] = [1, 0].map(Target::Class);
    assert_eq!(targets(&labels, "a\tpos\nb\t0\n").unwrap(), [one, zero]);
    for wrong in ["2", "-1", "positive"] {
        let error = targets(&labels, &format!("a\tpos\nb\t{wrong}\n")).unwrap_err().to_string();
        assert!(
            error.contains("x.tsv:3") && error.contains("neg, pos") && error.contains("0 to 1"),
            "{error}"
        );
    }
    // Where names are numbers, a label is a name and nothing else; and it stays as it is written.
    assert_eq!(from("a\t3\nb\t01\nc\t02\n").unwrap(), ["01", "02", "3"]);
    let labels = Labels { names: ["1", "2"].map(String::from).into() };
    let error = targets(&labels, "a\t1\nb\t0\n").unwrap_err().to_string();
    assert!(error.contains("x.tsv:3") && error.contains("expected one of 1, 2 ("), "{error}");
}

#[test]
fn texts_become_ids_with_special_tokens_and_are_cut() {
    let tokenizer = Tokenizer::read(&golden_dir().join("tiny-bert")).unwrap();
    let id = |piece: &str| {
        let vocabulary = std::fs::read_to_string(golden_dir().join("tiny-bert/vocab.txt")).unwrap();
        vocabulary.lines().position(|line| line == piece).unwrap() as u32
    };
    let ids = |pieces: &[&str]| pieces.iter().map(|piece| id(piece)).collect::<Vec<_>>();
    let plain = tokenizer.encode("The plot\u{2028}was GREAT!", None, 128);
    assert_eq!(plain.ids, ids(&["[CLS]", "the", "plot", "was", "great", "!", "[SEP]"]));
    assert_eq!(plain.first, 7);
    assert_eq!(
        tokenizer.encode("the plot was great", None, 4).ids,
        ids(&["[CLS]", "the", "plot", "[SEP]"])
    );
    assert_eq!(tokenizer.encode("", None, 4).ids, ids(&["[CLS]", "[SEP]"]));
    let pair = tokenizer.encode("the film", Some("was great"), 128);
    assert_eq!(pair.ids, ids(&["[CLS]", "the", "film", "[SEP]", "was", "great", "[SEP]"]));
    assert_eq!(pair.first, 4);
    // Longest first; what transformers 4.57.6 keeps: (tokens of a, of b, most, kept of each).
    for (a, b, most, kept) in [
        (5, 2, 8, (3, 2)),
        (2, 5, 8, (2, 3)),
        (5, 5, 8, (2, 3)),
        (9, 1, 8, (4, 1)),
        (5, 5, 4, (0, 1)),
        (40, 35, 32, (15, 14)),
        (35, 40, 32, (14, 15)),
        (35, 35, 32, (14, 15)),
        (40, 35, 31, (14, 14)),
        (29, 40, 32, (14, 15)),
        (40, 29, 32, (15, 14)),
        (28, 40, 32, (14, 15)),
        (40, 14, 32, (15, 14)),
        (40, 13, 32, (16, 13)),
        (5, 5, 3, (0, 0)),
    ] {
        let cut = tokenizer.encode(&"the ".repeat(a), Some(&"film ".repeat(b)), most);
        assert_eq!((cut.first - 2, cut.ids.len() - cut.first - 1), kept, "{a} and {b} in {most}");
    }
}

/// A long text is not read to its end; what is kept must not depend on that.
#[test]
fn a_long_text_gives_the_ids_of_its_beginning() {
    let tokenizer = Tokenizer::read(&golden_dir().join("tiny-bert")).unwrap();
    let spaces = " ".repeat(3000);
    let long = "film,".repeat(2000);
    for text in [
        "the plot was gr\u{e9}at ".repeat(1000),
        format!("the{spaces}plot{spaces}was{spaces}great"),
        format!("{long} {long}"),
        format!("{}\u{e9} \u{301}x", "a".repeat(500)),
        "\u{1f600}".repeat(2000),
        "\u{4e00}\u{4e01} ".repeat(2000),
    ] {
        let whole = tokenizer.encode(&text, None, 1 << 20);
        for most in [3, 16, 40] {
            let cut = tokenizer.encode(&text, None, most);
            let kept = most.min(whole.ids.len()) - 2;
            assert_eq!(cut.ids[1..=kept], whole.ids[1..=kept]);
            assert_eq!(cut.ids.len(), kept + 2);
            // Both halves of a pair are cut alike.
            let pair = tokenizer.encode(&text, Some(&text), most);
            assert_eq!(pair.ids[1..pair.first - 1], whole.ids[1..pair.first - 1]);
        }
    }
}

#[test]
fn a_tokenizer_that_cannot_be_used_is_refused() {
    let scratch = Scratch::new();
    let refuse = |name: &str, text: &str, parts: &[&str]| {
        let before = std::fs::read(scratch.path(name)).unwrap();
        scratch.write(name, text);
        let error = Tokenizer::read(&scratch.path("base")).err().unwrap().to_string();
        for part in parts.iter().chain([&name]) {
            assert!(error.contains(part), "expected {part:?} in: {error}");
        }
        scratch.write(name, before);
    };
    refuse("base/vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[MASK]\nx\n", &["[SEP]"]);
    refuse("base/vocab.txt", "", &["vocab"]);
    refuse("base/tokenizer_config.json", "{\"do_lower_case\": 3}", &["bool"]);
    refuse(
        "base/tokenizer_config.json",
        "{\"tokenizer_class\": \"PhobertTokenizer\"}",
        &["PhobertTokenizer", "supported: BertTokenizer, DistilBertTokenizer, RobertaTokenizer"],
    );
    let more = std::fs::read_to_string(scratch.path("base/vocab.txt")).unwrap() + "word\n";
    scratch.write("base/vocab.txt", (0..40).fold(more, |text, i| text + &format!("word{i}\n")));
    let output = scratch.train(&[]);
    crate::common::refused(&output, 1, &["vocabulary of", "vocab_size = 120"]);
}

#[test]
fn the_order_is_a_function_of_seed_and_epoch() {
    let order = epoch_order(1000, 42, 0, true);
    assert_eq!(order, epoch_order(1000, 42, 0, true));
    assert_ne!(order, epoch_order(1000, 42, 1, true));
    assert_ne!(order, epoch_order(1000, 43, 0, true));
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, epoch_order(1000, 42, 0, false));
    assert_eq!(
        epoch_order(10, 42, 0, true),
        [9, 7, 2, 5, 0, 1, 4, 3, 8, 6],
        "and of nothing else, in any version"
    );
}

#[test]
fn a_split_takes_its_share_of_each_class() {
    let labels: Vec<usize> = (0..1000).map(|i| usize::from(i % 5 == 0)).chain([2, 3, 3]).collect();
    let (train, eval) = split_by_class(&labels, 0.1, 7);
    let count = |rows: &[usize], class| rows.iter().filter(|&&row| labels[row] == class).count();
    assert_eq!(
        (count(&eval, 0), count(&eval, 1), count(&eval, 2), count(&eval, 3)),
        (80, 20, 0, 1)
    );
    let mut all = [train, eval].concat();
    all.sort_unstable();
    assert_eq!(all, (0..labels.len()).collect::<Vec<_>>());
}

#[test]
fn a_batch_is_packed() {
    let sequences =
        [Encoded { ids: vec![2, 7, 3], first: 3 }, Encoded { ids: vec![2, 8, 3, 9, 3], first: 3 }];
    let batch = Batch::new(&sequences);
    assert_eq!(batch.input_ids, [2, 7, 3, 2, 8, 3, 9, 3]);
    assert_eq!(batch.position_ids, [0, 1, 2, 0, 1, 2, 3, 4]);
    assert_eq!(batch.token_type_ids, [0, 0, 0, 0, 0, 0, 1, 1]);
    assert_eq!(batch.cu_seqlens, [0, 3, 8]);
    assert_eq!(batch.max_seqlen, 5);
}
