//! Labels: the classes, and each row's target.

use super::source::{Dataset, Label, Row, RowOrigin};
use super::spelling::{self, Number, folded, listed, quoted};
use crate::error::{Error, Result};
use crate::models::TaskType;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

/// The names of the classes; empty for a regression.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// Names by class number.
    pub names: Vec<String>,
    /// Whether the file or the configuration says which name has which number. If not, the names
    /// are sorted, and a number in the data does not identify a class.
    pub declared: bool,
}

/// Target of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// A class number.
    Class(usize),
    /// Any number of labels (multi-label).
    Labels {
        /// Numbers of the row's labels, ascending.
        present: Vec<u32>,
        /// Number of labels of the task.
        num_labels: usize,
    },
    /// A number (regression).
    Number(f32),
}

impl Target {
    /// Whether the row has each label of a multi-label task, by class number; `None` for others.
    pub fn flags(&self) -> Option<Vec<bool>> {
        let Self::Labels { present, num_labels } = self else { return None };
        let mut flags = vec![false; *num_labels];
        for &label in present {
            flags.get_mut(label as usize).into_iter().for_each(|flag| *flag = true);
        }
        Some(flags)
    }
}

/// Maximum number of classes. A column with more is probably not the label column.
const MAX_LABELS: usize = 10_000;

impl Labels {
    /// The labels of the data: in the file's order if it names the classes, in numeric order if all
    /// are numbers, else in the order of their names.
    ///
    /// Errs if two labels only look alike, or if a value is not a label unless `model.label_names`
    /// names it, such as a missing value. With `skip_bad_rows` such values are passed over, and
    /// [`Labels::reader`] refuses their rows. Also errs on no labels, a single class or too many
    /// classes.
    pub fn of(task: TaskType, path: &Path, data: &Dataset, skip_bad_rows: bool) -> Result<Self> {
        if task == TaskType::Regression {
            return Ok(Self::default());
        }
        let (found, declared) = (ObservedLabels::of(&data.rows), data.classes.is_some());
        let mut names = match &data.classes {
            Some(_) => found.names().map(str::to_owned).collect(),
            None => found.to_learn(task, &data.rows, skip_bad_rows)?,
        };
        if names.iter().all(|name| name.parse::<u64>().is_ok()) {
            names.sort_by_key(|name| name.parse::<u64>().ok());
        }
        if let (Some(classes), true) =
            (&data.classes, names.len() > 1 || task == TaskType::MultiLabel)
        {
            names.clone_from(classes);
        }
        if names.len() > MAX_LABELS {
            let problem = format!(
                "found {} different labels, expected at most {MAX_LABELS}; is data.label_column the right column? If its values are numbers to predict, set model.task_type = \"regression\"",
                names.len()
            );
            return Err(Error::data(path, None, problem));
        }
        if let Some(doubt) = doubt(task, &names, &data.rows).filter(|_| !declared) {
            tracing::warn!("{}: {doubt}", path.display());
        }
        match (&names[..], task) {
            ([], _) => Err(Error::data(path, None, "no labels")),
            ([only], TaskType::Classification) => Err(Self::one_class(path, only)),
            _ => Ok(Self { names, declared }),
        }
    }

    /// The error that all rows of `path` have the class `only`.
    pub fn one_class(path: &Path, only: &str) -> Error {
        let only = quoted(only);
        let problem = format!("one class only, {only}; a classifier needs rows of two or more");
        Error::data(path, None, problem)
    }

    /// The target of each row. Errs if a row's labels are not valid for `task`.
    pub fn targets(&self, task: TaskType, rows: &[Row]) -> Result<Vec<Target>> {
        let reader = self.reader(task, rows);
        rows.iter().map(|row| reader.target(row)).collect()
    }

    /// The meaning of the labels of `rows`, which can depend on all rows.
    ///
    /// A label is the class of exactly that name. If there is none, it is the class whose name
    /// differs from the label only in case, white space, Unicode form or (if all names are numbers)
    /// the spelling of the number, provided that only one name and one label of the rows match. If
    /// there is none either, the names have declared numbers, and no label of the rows is a name,
    /// it is the class of that number.
    pub fn reader<'a>(&'a self, task: TaskType, rows: &[Row]) -> LabelReader<'a> {
        let mut reader =
            LabelReader { labels: self, task, classes: HashMap::new(), lists: ReadLists::Names };
        if task != TaskType::Regression {
            let found = ObservedLabels::of(rows);
            let one_column = task == TaskType::MultiLabel && rows.iter().all(|row| !row.list);
            reader.classes = self.classes(&found, one_column && found.is_of_flags());
            if task == TaskType::MultiLabel {
                reader.lists = self.read_lists(&found);
            }
        }
        reader
    }

    /// The way to read the lists of the rows: as names, or as 0 or 1 for each label.
    fn read_lists(&self, found: &ObservedLabels<'_>) -> ReadLists {
        let own: HashSet<&str> = self.names.iter().map(String::as_str).collect();
        let named = || found.names().all(|name| own.contains(name));
        match &found.lists {
            ObservedLists::Names => ReadLists::Names,
            // The labels are themselves named 0 and 1, and the lists do not have one value for each
            // label.
            ObservedLists::Flags { certain: false, length, .. }
                if *length != Some(self.names.len()) && named() =>
            {
                ReadLists::Names
            }
            ObservedLists::Flags { .. } => ReadLists::Flags,
            ObservedLists::Fractions(_) if named() => ReadLists::Names,
            ObservedLists::Fractions(place) | ObservedLists::Repeats(place) => {
                ReadLists::Wrong(format!("{NEITHER}; see {place}"))
            }
        }
    }

    /// The class of each label found, or why it has none. `flags` is whether the labels are 0 and 1
    /// in the one column of a multi-label task, which may say whether rows have one of several
    /// labels.
    fn classes(&self, found: &ObservedLabels<'_>, flags: bool) -> HashMap<Label, ClassOrReason> {
        let matcher = NameMatcher::new(self, found);
        let named: Vec<Option<ClassOrReason>> =
            found.labels.keys().map(|label| matcher.class_of(&label.name)).collect();
        // A number is a class number only if no label of the rows is a name.
        let nameless = !named.iter().any(Option::is_some);
        let by_number =
            nameless && self.declared && self.names.iter().all(|name| Number::of(name).is_none());
        if by_number && !flags {
            self.warn_of_numbers_from_1(found);
        }
        let numbered = self.names.iter().enumerate().all(|(i, name)| says_number(name, i as i64));
        let number = |label: &Label| {
            let class = match label.number {
                None => Number::of(&label.name)?.class().filter(|_| by_number && !flags),
                Some(number) => usize::try_from(number).ok().filter(|_| {
                    (by_number && (numbered || says_number(&label.name, number)))
                        || (nameless && numbered && Number::of(&label.name).is_none())
                }),
            };
            class.filter(|&class| class < self.names.len())
        };
        let unknown = |label: &Label| {
            if by_number && flags {
                return FLAGS.to_owned();
            }
            found.trouble(&label.name).unwrap_or_else(|| {
                let numbers = match by_number && label.number.is_none() {
                    true => format!(", or 0 to {}", self.names.len().saturating_sub(1)),
                    false => String::new(),
                };
                let here = listed(found.names());
                format!(
                    "expected one of {self}{numbers} (from the training data or model.label_names); the labels of this data are {here}"
                )
            })
        };
        let read = |(label, named): (&&Label, Option<ClassOrReason>)| {
            let class = named.unwrap_or_else(|| number(label).ok_or_else(|| unknown(label)));
            ((*label).clone(), class)
        };
        found.labels.keys().zip(named).map(read).collect()
    }

    /// Warns if class numbers, which count from 0, may have been counted from 1.
    fn warn_of_numbers_from_1(&self, found: &ObservedLabels<'_>) {
        let class =
            |label: &&Label| Number::of(&label.name)?.class().filter(|_| label.number.is_none());
        let numbers: Option<BTreeSet<usize>> = found.labels.keys().map(class).collect();
        let numbers = numbers.unwrap_or_default();
        let (count, most) = (numbers.len(), numbers.last().copied().unwrap_or(0));
        let Some(place) = found.labels.values().next() else { return };
        // Warn only if the numbers are exactly 1 to `count`, all of them valid class numbers.
        if count < 2 || numbers.contains(&0) || most != count || most >= self.names.len() {
            return;
        }
        if let [zero, one, ..] = &self.names[..] {
            let [zero, one] = [zero, one].map(|name| quoted(name));
            tracing::warn!(
                "{}: the labels are the numbers 1 to {most}, without 0. Class numbers start at 0, so 1 means {one} and no row is {zero}. If your numbers start at 1, write class names instead",
                place.path.display()
            );
        }
    }
}

/// A class number, or why a label has none.
type ClassOrReason = std::result::Result<usize, String>;

/// Finds the classes whose names match a label.
struct NameMatcher<'a> {
    labels: &'a Labels,
    /// Whether all names are numbers, which are then compared by value.
    numbers: bool,
    /// Classes by name.
    exact: HashMap<&'a str, Vec<usize>>,
    /// Classes by what their names look like.
    alike: HashMap<Alike, Vec<usize>>,
    /// The names in the rows, by what they look like.
    spellings: HashMap<Alike, Vec<&'a str>>,
}

impl<'a> NameMatcher<'a> {
    fn new(labels: &'a Labels, found: &ObservedLabels<'a>) -> Self {
        let numbers = labels.names.iter().all(|name| Number::of(name).is_some());
        let mut exact: HashMap<&str, Vec<usize>> = HashMap::new();
        let mut alike: HashMap<Alike, Vec<usize>> = HashMap::new();
        for (class, name) in labels.names.iter().enumerate() {
            exact.entry(name).or_default().push(class);
            alike.entry(Alike::of(name, numbers)).or_default().push(class);
        }
        let mut spellings: HashMap<Alike, Vec<&str>> = HashMap::new();
        for name in found.names() {
            spellings.entry(Alike::of(name, numbers)).or_default().push(name);
        }
        Self { labels, numbers, exact, alike, spellings }
    }

    /// The class of a label `name` of the rows, or why it is ambiguous; `None` if no name matches.
    fn class_of(&self, name: &str) -> Option<ClassOrReason> {
        let own = self.exact.get(name).map(Vec::as_slice);
        if let Some([class]) = own {
            return Some(Ok(*class));
        }
        let key = Alike::of(name, self.numbers);
        let classes = own.or_else(|| self.alike.get(&key).map(Vec::as_slice))?;
        Some(match (classes, self.spellings.get(&key).map_or(&[][..], Vec::as_slice)) {
            ([class], [_]) => Ok(*class),
            ([_], several) => Err(format!(
                "found in several spellings, {}; use one spelling for each label",
                listed(several.iter().copied())
            )),
            (several, _) => {
                let names = several.iter().filter_map(|&class| self.labels.names.get(class));
                let names = listed(names.map(String::as_str));
                Err(format!("matches several labels of the task: {names}"))
            }
        })
    }
}

/// The meaning of the labels of some rows, as [`Labels::reader`] returns it.
pub struct LabelReader<'a> {
    labels: &'a Labels,
    task: TaskType,
    classes: HashMap<Label, ClassOrReason>,
    lists: ReadLists,
}

/// The contents of lists.
enum ReadLists {
    /// Names of labels.
    Names,
    /// 0 or 1 for each label.
    Flags,
    /// Unknown, for this reason.
    Wrong(String),
}

/// The error for a list of numbers that are neither 0 or 1 for each label nor names.
const NEITHER: &str = "expected lists of the row's labels, or lists with 0 or 1 for each label; found numbers that fit neither, because one occurs twice in a list or is a fraction";

/// The error for one column of 0 and 1 in a multi-label task.
const FLAGS: &str = "a single column of 0 and 1 is ambiguous in a multi-label task, because the values can be flags or class numbers; expected one column for each label (data.label_columns, --label-columns), lists, or the labels' names";

impl LabelReader<'_> {
    /// The target of `row`. Errs if its labels are not valid for the task.
    pub fn target(&self, row: &Row) -> Result<Target> {
        match self.task {
            TaskType::Classification => Ok(Target::Class(self.class(row, only(row)?)?)),
            TaskType::Regression => Ok(Target::Number(number(row, only(row)?)?)),
            TaskType::MultiLabel => {
                let num_labels = self.labels.names.len();
                let mut present = match self.flags(row)? {
                    Some(flags) => {
                        let own = flags.iter().enumerate().filter(|(_, has)| **has);
                        own.map(|(class, _)| class as u32).collect()
                    }
                    None => {
                        let class = |label| Ok(self.class(row, label)? as u32);
                        row.labels().iter().map(class).collect::<Result<Vec<u32>>>()?
                    }
                };
                present.sort_unstable();
                present.dedup();
                if row.labels().iter().any(|label| label.number.is_some())
                    && present.len() < row.labels().len()
                {
                    let problem = "a label occurs twice in this list; the file's metadata says that lists hold class numbers, not 0 or 1 for each label";
                    return Err(row.place.error(problem));
                }
                Ok(Target::Labels { present, num_labels })
            }
        }
    }

    /// Replaces the labels of `row` with the names of its classes, which mean the same among any
    /// other rows. Leaves the row of a regression as it is. Errs if its labels are not valid for
    /// the task.
    pub fn replace_by_names(&self, row: &mut Row) -> Result<()> {
        let classes = match self.target(row)? {
            Target::Class(class) => vec![class],
            Target::Labels { present, .. } => {
                present.into_iter().map(|class| class as usize).collect()
            }
            Target::Number(_) => return Ok(()),
        };
        let name = |class: usize| self.labels.names.get(class).cloned();
        let label = |name| Label { name, number: None };
        row.labels = Some(classes.into_iter().filter_map(name).map(label).collect());
        (row.list, row.flags) = (false, [].into());
        Ok(())
    }

    fn class(&self, row: &Row, label: &Label) -> Result<usize> {
        let class = self.classes.get(label).ok_or_else(|| {
            Error::Bug(format!("the label {label} is of other rows than those that were read"))
        })?;
        class.clone().map_err(|why| row.place.error(format!("label {label}: {why}")))
    }

    /// The row's 0 or 1 for each label; `None` if it has no list or its list holds names.
    fn flags(&self, row: &Row) -> Result<Option<Vec<bool>>> {
        let labels = row.labels();
        match &self.lists {
            _ if !row.list => return Ok(None),
            ReadLists::Names => return Ok(None),
            ReadLists::Wrong(why) => return Err(row.place.error(why)),
            ReadLists::Flags => {}
        }
        let flags = match &row.flags[..] {
            [] => labels.iter().map(|label| spelling::flag(&label.name)).collect(),
            flags => Some(flags.to_vec()),
        };
        // This list holds names, although others hold 0 and 1.
        let Some(flags) = flags else { return Ok(None) };
        let (length, count) = (flags.len(), self.labels.names.len());
        if length != count {
            return Err(row.place.error(format!(
                "found a list of {length} numbers, expected 0 or 1 for each of the {count} labels {}",
                self.labels
            )));
        }
        Ok(Some(flags))
    }
}

/// The row's only label. Errs if it has none or several.
fn only(row: &Row) -> Result<&Label> {
    match row.labels() {
        [label] => Ok(label),
        [] if row.flags.is_empty() => Err(row.place.error("no label")),
        labels => {
            let count = labels.len().max(row.flags.len());
            let problem = format!(
                "found {count} labels, expected one; for several labels, set model.task_type = \"multi_label\""
            );
            Err(row.place.error(problem))
        }
    }
}

/// The target that `label` is in a regression: its name as a number, or else its class number in
/// the file. Errs if that is missing or not finite.
fn number(row: &Row, label: &Label) -> Result<f32> {
    let number = label.name.parse().ok().or_else(|| label.number.map(|number| number as f32));
    number.filter(|number: &f32| number.is_finite()).ok_or_else(|| {
        let hint = match spelling::comma(&label.name) {
            Some((what, write)) => format!("; this is {what}, write {write}"),
            None => String::new(),
        };
        row.place.error(format!(
            "label {label}: expected a number between -3.4e38 and 3.4e38, because model.task_type is \"regression\"{hint}"
        ))
    })
}

/// A key that is equal for two texts that look alike.
#[derive(PartialEq, Eq, Hash)]
enum Alike {
    Number(Number),
    Text(String),
}

impl Alike {
    /// The key of `text`. With `numbers`, where all texts are numbers, numbers are equal by value.
    fn of(text: &str, numbers: bool) -> Self {
        let number = numbers.then(|| Number::of(text)).flatten();
        number.map_or_else(|| Self::Text(folded(text)), Self::Number)
    }
}

/// The labels of some rows.
struct ObservedLabels<'a> {
    /// Labels, each with the first row that has it.
    labels: BTreeMap<&'a Label, &'a RowOrigin>,
    /// Whether all labels that are not missing values are numbers, and there are any.
    numbers: bool,
    lists: ObservedLists<'a>,
}

/// The contents of the rows' lists, as far as they can be told without the task's labels.
enum ObservedLists<'a> {
    /// Names of labels, or no lists at all.
    Names,
    /// Only 0 and 1.
    Flags {
        first: &'a RowOrigin,
        /// Whether 0 and 1 cannot be names of labels, because a list has one of them twice.
        certain: bool,
        /// The length of the lists, if it is the same for all.
        length: Option<usize>,
    },
    /// Numbers, some of them fractions.
    Fractions(&'a RowOrigin),
    /// Numbers, one of them twice in the same list.
    Repeats(&'a RowOrigin),
}

impl<'a> ObservedLabels<'a> {
    fn of(rows: &'a [Row]) -> Self {
        let mut labels = BTreeMap::new();
        for row in rows {
            row.labels().iter().for_each(|label| {
                labels.entry(label).or_insert(&row.place);
            });
        }
        let mut there = labels.keys().filter(|label| !spelling::is_missing(&label.name, true));
        let number = |label: &&Label| {
            Number::of(&label.name).is_some() || spelling::comma(&label.name).is_some()
        };
        let numbers = there.clone().next().is_some() && there.all(number);
        Self { labels, numbers, lists: ObservedLists::of(rows) }
    }

    /// Whether all labels are 0 or 1, and the file does not name the classes.
    fn is_of_flags(&self) -> bool {
        let flag = |label: &&Label| label.number.is_none() && spelling::flag(&label.name).is_some();
        !self.labels.is_empty() && self.labels.keys().all(flag)
    }

    /// The distinct names, sorted.
    fn names(&self) -> impl Iterator<Item = &'a str> {
        let mut last = None;
        let names = self.labels.keys().map(|label| label.name.as_str());
        names.filter(move |name| last.replace(*name) != Some(*name))
    }

    /// The reason why `name` cannot be a label, unless the task has a label of that name; `None` if
    /// it can.
    fn trouble(&self, name: &str) -> Option<String> {
        if spelling::is_missing(name, self.numbers) {
            return Some("expected a label (data.label_column), but programs write this text for a missing value; to use it as a label, list it in model.label_names; to leave such rows out, set data.skip_bad_rows".into());
        }
        let flags = spelling::is_row_of_flags(name) && spelling::comma(name).is_none();
        if flags || spelling::is_printed_list(name) {
            return Some("expected a label, but this is a list written as text; use JSON or Parquet for lists, or data.label_separator to split a text into labels".into());
        }
        let (what, write) = spelling::comma(name).filter(|_| self.numbers)?;
        Some(format!(
            "expected a label, but this is {what}, write {write}; if the task is to predict this number, set model.task_type = \"regression\""
        ))
    }

    /// The names of the labels to learn from these rows, sorted, if neither the file nor the
    /// configuration names them.
    fn to_learn(&self, task: TaskType, rows: &[Row], skip_bad_rows: bool) -> Result<Vec<String>> {
        match (task, &self.lists) {
            (TaskType::MultiLabel, ObservedLists::Flags { first, .. }) => {
                let problem = "a list of 0 and 1 does not name its labels; expected their names in model.label_names, lists of names, or one column for each label (data.label_columns)";
                return Err(first.error(problem));
            }
            (
                TaskType::MultiLabel,
                ObservedLists::Fractions(place) | ObservedLists::Repeats(place),
            ) => {
                return Err(place.error(NEITHER));
            }
            (TaskType::MultiLabel, ObservedLists::Names) => {}
            (TaskType::Classification | TaskType::Regression, _) => {
                if !skip_bad_rows {
                    rows.iter().try_for_each(|row| only(row).map(|_| ()))?;
                }
            }
        }
        let mut alike: HashMap<Alike, (&Label, &RowOrigin)> = HashMap::new();
        let mut names: Vec<String> = vec![];
        for (&label, &place) in &self.labels {
            match self.trouble(&label.name) {
                Some(_) if skip_bad_rows => continue,
                Some(why) => return Err(place.error(format!("label {label}: {why}"))),
                None => names.push(label.name.clone()),
            }
            if let Some((other, there)) =
                alike.insert(Alike::of(&label.name, self.numbers), (label, place))
            {
                return Err(place.error(format!(
                    "label {label}: looks like the label {other} in {there}; they differ only in case, white space, Unicode form or the spelling of a number; use one spelling, or list both in model.label_names"
                )));
            }
        }
        Ok(names)
    }
}

impl<'a> ObservedLists<'a> {
    fn of(rows: &'a [Row]) -> Self {
        let lists = || rows.iter().filter(|row| row.list);
        let labels: BTreeSet<&Label> = lists().flat_map(Row::labels).collect();
        let mut lengths = lists().map(|row| row.labels().len().max(row.flags.len()));
        let length = lengths.next().filter(|first| lengths.all(|length| length == *first));
        let certain = lists().find(|row| !row.flags.is_empty());
        let binary = labels
            .iter()
            .all(|label| label.number.is_none() && spelling::flag(&label.name).is_some());
        let numbers = labels.iter().all(|label| is_number(label));
        let with_labels = || lists().find(|row| !row.labels().is_empty());
        match (certain, with_labels()) {
            (Some(row), _) if numbers && !binary => return Self::Repeats(&row.place),
            (Some(row), _) => return Self::Flags { first: &row.place, certain: true, length },
            (None, Some(row)) if binary => {
                return Self::Flags { first: &row.place, certain: false, length };
            }
            (None, Some(_)) if numbers => {}
            (None, _) => return Self::Names,
        }
        let repeats = |row: &&Row| {
            let different: BTreeSet<&Label> = row.labels().iter().collect();
            different.len() < row.labels().len()
        };
        let fraction = |label: &Label| Number::of(&label.name).is_some_and(|n| !n.is_whole());
        if let Some(row) = lists().find(repeats) {
            Self::Repeats(&row.place)
        } else if let Some(row) = lists().find(|row| row.labels().iter().any(fraction)) {
            Self::Fractions(&row.place)
        } else {
            Self::Names
        }
    }
}

/// Whether a label is written as a number or a truth value.
fn is_number(label: &Label) -> bool {
    let text = || Number::of(&label.name).is_some() || spelling::flag(&label.name).is_some();
    label.number.is_none() && text()
}

/// Whether `name` is only the class's number: `0`, or transformers' `LABEL_0`.
fn says_number(name: &str, number: i64) -> bool {
    let number = number.to_string();
    let rest = name.get(..6).filter(|start| start.eq_ignore_ascii_case("label_"));
    name == number || (rest.is_some() && name.get(6..) == Some(&number))
}

/// A warning about implausible labels that are learned from `rows`.
fn doubt(task: TaskType, names: &[String], rows: &[Row]) -> Option<String> {
    let (count, of) = (names.len(), rows.len());
    if task == TaskType::MultiLabel {
        let between = |name: &String| name.contains([',', ';', '|']);
        let several = rows.iter().any(|row| row.labels().len() > 1);
        let name = names.iter().find(|name| between(name)).filter(|_| !several)?;
        let name = quoted(name);
        if rows.iter().any(|row| row.list) {
            return Some(format!(
                "no row has more than one label, but one label is {name}; is data.label_separator right?"
            ));
        }
        return Some(format!(
            "each row has only one label, such as {name}; data.label_separator splits it into several"
        ));
    }
    if let Some(doubt) = joined(names) {
        return Some(doubt);
    }
    let numbers = || names.iter().map(|name| Number::of(name));
    let fractions = numbers().flatten().any(|number| !number.is_whole());
    let many = count >= 10 && 2 * count >= of;
    if numbers().all(|number| number.is_some()) && (fractions || many) {
        return Some(format!(
            "each of {count} different numbers in {of} rows becomes a class; to predict numbers, set model.task_type = \"regression\""
        ));
    }
    let one = |number: bool| names.iter().find(|name| Number::of(name).is_some() == number);
    if let (Some(number), Some(word)) = (one(true), one(false)) {
        let [number, word] = [number, word].map(|name| quoted(name));
        return Some(format!(
            "some labels are numbers, such as {number}, and some are words, such as {word}; each becomes a class"
        ));
    }
    let texts = rows.iter().map(|row| &row.text).collect::<HashSet<_>>().len();
    if many && 2 * texts <= count {
        return Some(format!(
            "{count} different labels and {texts} different texts in {of} rows; are data.text_column and data.label_column swapped?"
        ));
    }
    many.then(|| {
        format!("{count} different labels in {of} rows; is data.label_column the right column?")
    })
}

/// A warning about names that join other names, as several labels in one cell do.
fn joined(names: &[String]) -> Option<String> {
    let all: HashSet<&str> = names.iter().map(String::as_str).collect();
    [';', '|', ','].into_iter().find_map(|separator| {
        let joins = |name: &&String| {
            let mut parts = name.split(separator).map(str::trim);
            name.contains(separator) && parts.all(|part| all.contains(part))
        };
        let name = quoted(names.iter().find(joins)?);
        Some(format!(
            "the label {name} joins other labels; if a text may have several, set model.task_type = \"multi_label\" and data.label_separator = \"{separator}\""
        ))
    })
}

/// Shows the first names, for a message.
impl std::fmt::Display for Labels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&listed(self.names.iter().map(String::as_str)))
    }
}
