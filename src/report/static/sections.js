// The sections below the explorer: what the other stages left.

/** Fill a section, or say which stage would. */
function section(id, part, build) {
  document.getElementById(id).append(...(part.absent ? [figure(part)] : build(part)));
}

/** A table that becomes cards on a phone: heads are texts, rows lists of texts, the first a row's name. */
function cardTable(heads, rows, caption) {
  const top = heads.map((text, i) => head(text, i ? { class: "num" } : {}));
  const body = rows.map(([name, ...values]) => {
    const cells = values.map((value, i) => cell(heads[i + 1], "num", value));
    return row(element("th", { scope: "row", role: "rowheader" }, name), ...cells);
  });
  return element(
    "table",
    { class: "cards", role: "table" },
    element("caption", {}, caption),
    element("thead", { role: "rowgroup" }, row(...top)),
    element("tbody", { role: "rowgroup" }, ...body),
  );
}

function dataSection(data) {
  const nodes = [element("p", {}, `${data.dataset}, ${plural(data.findings, "finding")}. Split ${data.split}.`)];
  nodes.push(...data.notes.map((text) => element("p", {}, `${text}.`)));
  if (data.failed.length) {
    nodes.push(element("p", { class: "warning" }, "The split failed a check:"));
    nodes.push(element("ul", { class: "warning" }, ...data.failed.map((text) => element("li", {}, text))));
  } else nodes.push(element("p", {}, "Every check of the split passed: no patient is in two splits."));
  const rows = data.sizes.map(([split, ...sizes]) => [split, ...sizes.map(count)]);
  return [...nodes, cardTable(["Split", "Images", "Studies", "Patients"], rows, "Sizes of the splits")];
}

/** A picture with its caption, or the sentence that says which stage would make a part that is absent. */
function figure(picture) {
  if (picture.absent) return element("p", { class: "absent" }, picture.absent);
  return element("figure", {}, image(picture), element("figcaption", {}, picture.caption));
}

/** The picture alone, in a frame that scrolls sideways where the page is narrow. */
function image({ src, width, height, alt }) {
  return element("div", { class: "frame" }, element("img", { src, width, height, alt }));
}

function figures(pictures) {
  return element("div", { class: "charts" }, ...pictures.map(figure));
}

/** Groups in the order of the audit: the largest gap among many is mostly chance, so that none is ranked. */
function subgroupsSection(parts) {
  const words = "Recall within groups of patients. Verdicts hold for all groups of a finding together; a group with too " +
    "few positive patients has none, and without test data no group has one.";
  const heads = ["Finding", "Group", "Positives", "Missed", "Recall", "Verdict"];
  const folded = ({ recall, picture, rows }) => {
    const texts = rows.map((row) => [
      row.class, `${row.by} ${row.group}`, count(row.positives), count(row.missed),
      withInterval(row.recall, [row.low, row.high]),
      row.verdict || (row.needed ? `cannot be stated: ${plural(row.needed, "more positive patient")} needed` : "-"),
    ]);
    const title = `Recall within groups, against ${recall}`;
    return [figure(picture), element("details", {}, element("summary", {}, `${title}: the figures`), cardTable(heads, texts, title))];
  };
  return [element("p", {}, words), ...parts.flatMap(folded)];
}

function trainingSection(histories) {
  return Object.entries(histories).flatMap(([model, { absent, text, pictures }]) => {
    if (absent) return [figure({ absent })];
    return [element("h3", {}, model), element("p", {}, text), figures(pictures)];
  });
}

/** The views of the labels beside the policy's, in the order shown; a part may lack the first. */
const OTHER_VIEWS = { no_finding: "blanks of “No Finding” negative", blank: "blanks negative" };

function metricsSection(parts) {
  const present = parts.filter((part) => !part.absent);
  const nodes = parts.filter((part) => part.absent).map(figure);
  if (!present.length) return nodes;
  const others = Object.keys(OTHER_VIEWS).filter((view) => present.some((part) => part[view]));
  const rows = present.map(({ name, split, loss, ...views }) => {
    const { macro } = views.masked;
    const values = ["accuracy", "auroc", "auprc"].map((key) => withInterval(macro[key], macro[`${key}_ci`]));
    const right = others.flatMap((view) => ["auroc", "auprc"].map((key) => views[view] ? fixed(views[view].macro[key]) : ""));
    return [`${name} (${split})`, fixed(loss), ...values, ...right];
  });
  const heads = ["Model", "Loss", "Accuracy", "Macro AUROC", "Macro AUPRC"];
  heads.push(...others.flatMap((view) => ["AUROC", "AUPRC"].map((text) => `${text}, ${OTHER_VIEWS[view]}`)));
  const caption = "Labels under the label policy; on the right, with more blanks counted as negatives";
  return [cardTable(heads, rows, caption), ...present.map(perClass), ...nodes];
}

function perClass({ name, split, masked, ...part }) {
  const others = Object.keys(OTHER_VIEWS).filter((view) => part[view]);
  const rows = masked.per_class.map((values, c) => {
    const figures = ["auroc", "auprc"].map((key) => withInterval(values[key], values[`${key}_ci`]));
    const counts = [count(values.positives), count(values.negatives)];
    const right = others.map((view) => part[view].per_class[c]).flatMap((other) =>
      [count(other.negatives), fixed(other.auroc), fixed(other.auprc), fixed(other.prevalence)]);
    return [values.name, ...counts, ...figures, fixed(values.prevalence), ...right];
  });
  const heads = ["Finding", "Positives", "Negatives", "AUROC", "AUPRC", "Chance"];
  heads.push(...others.flatMap((view) =>
    ["Negatives", "AUROC", "AUPRC", "Chance"].map((text) => `${text}, ${OTHER_VIEWS[view]}`)));
  const caption = `${name} on ${split}. Chance: the AUPRC of a random ranking, which equals the prevalence`;
  return element(
    "details", {}, element("summary", {}, `Per finding: ${name} (${split})`), cardTable(heads, rows, caption),
  );
}

function blendSection({ members, weights, alpha, select, picture }) {
  const shown = picture ? [figure(picture)] : [];
  if (!picture || picture.absent) {
    const rows = members.map((name, i) => [name, fixed(weights[i])]);
    return [cardTable(["Member", "Weight"], rows, "Weights of the blend"), ...shown];
  }
  const rule = select === "one-se" ? "nearest 0.5 within one standard error of the best" : "the best";
  const words = `p = alpha × ${members[0]} + (1 − alpha) × ${members[1]}. Chosen on validation: alpha ${alpha}, ${rule}.`;
  return [element("p", {}, words), ...shown];
}

/** The diagrams of the blend, and those of each model folded away. */
function reliabilitySection(parts) {
  const words = "Observed share over predicted probability, in groups of about equal size. " +
    "On the diagonal, a finding occurs as often as predicted.";
  const [blend, ...models] = parts;
  const folded = models.map((part) => part.absent ? figure(part)
    : element("details", {}, element("summary", {}, part.caption), image(part)));
  return [element("p", {}, words), figure(blend), ...folded];
}
