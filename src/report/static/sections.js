// The sections below the explorer: what the other stages left.

/** Fill a section, or say which stage would. */
function section(id, part, build) {
  const root = document.getElementById(id);
  if (part.absent) root.append(element("p", { class: "absent" }, part.absent));
  else root.append(...build(part));
}

/** A table that becomes cards on a phone: heads are texts, rows lists of texts or nodes, the first a row's name. */
function cardTable(heads, rows, caption) {
  const top = heads.map((text, i) => head(text, i && !(rows[0][i] instanceof Node) ? { class: "num" } : {}));
  const body = rows.map(([name, ...values]) => {
    const cells = values.map((value, i) => cell(heads[i + 1], value instanceof Node ? "bars" : "num", value));
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
  if (data.failed.length) {
    nodes.push(element("p", { class: "warning" }, "The split failed a check:"));
    nodes.push(element("ul", { class: "warning" }, ...data.failed.map((text) => element("li", {}, text))));
  } else nodes.push(element("p", {}, "Every check of the split passed: no patient is in two splits."));
  const rows = data.sizes.map(([split, ...sizes]) => [split, ...sizes.map(count)]);
  return [...nodes, cardTable(["Split", "Images", "Studies", "Patients"], rows, "Sizes of the splits")];
}

const STATE_LOOKS = { positive: "found", negative: "negative", uncertain: "uncertain", blank: "rest" };

function labelsSection({ classes, states, splits }) {
  const key = element("p", { class: "legend" });
  legend(key, states.map((state) => [STATE_LOOKS[state], state]));
  const rows = classes.map((name, c) => {
    const counts = splits.all[c];
    const images = counts.reduce((sum, number) => sum + number, 0);
    const parts = states.map((state, i) => ({
      look: STATE_LOOKS[state], label: state, share: counts[i] / images, text: count(counts[i]),
    }));
    const shares = ["val", "test"].map((split) => (splits[split] ? prevalences(splits[split][c]) : "n/a"));
    return [name, stackedBar(parts, name), ...counts.map(count), ...shares];
  });
  const note =
    "Prevalence: positives among the images labeled positive or negative; after the stroke, with each blank " +
    "counted as a negative.";
  const heads = ["Finding", "All images", ...states.map(capital), "Prevalence in val", "Prevalence in test"];
  return [key, cardTable(heads, rows, "Images by label"), element("p", { class: "muted" }, note)];
}

function capital(text) {
  return text[0].toUpperCase() + text.slice(1);
}

function prevalences([positive, negative, , blank]) {
  const [masked, all] = [ratio(positive, positive + negative), ratio(positive, positive + negative + blank)];
  return `${fixed(masked)} / ${fixed(all)}`;
}

function trainingSection(histories) {
  return Object.entries(histories).flatMap(([model, history]) => {
    if (history.absent) return [element("p", { class: "absent" }, history.absent)];
    const series = [
      ["loss per valid label", [["train_loss", "training", "first"], ["val_loss", "validation", "second"]]],
      ["validation score, mean over findings", [["val_auroc", "AUROC", "first"], ["val_auprc", "AUPRC", "second"]]],
    ];
    const charts = series.map(([what, lines]) => {
      const drawn = lines.map(([key, label, look]) => ({ values: history[key], label, look }));
      return lineChart(`${model}: ${what}`, history.epoch, drawn, { xLabel: "epoch", mark: history.kept });
    });
    const kept = history.kept === null ? "" : `, epoch ${history.kept} kept (dashed), the best validation AUPRC`;
    return [element("h3", {}, model), element("p", {}, `${plural(history.epoch.length, "epoch")}${kept}.`),
      element("div", { class: "charts" }, ...charts)];
  });
}

/** Lines over x: series are {values, label, look}; `mark` is where a dashed line stands. */
function lineChart(title, x, series, { xLabel, mark = null, band = null }) {
  const all = [...series.flatMap((one) => one.values), ...(band ? band.low : [])].filter(Number.isFinite);
  const [low, high] = all.length ? [Math.min(...all), Math.max(...all)] : [0, 1];
  const air = (high - low) * 0.08 || 0.05;
  const yRange = [low - air, high + air];
  const xRange = x.length > 1 ? [x[0], x[x.length - 1]] : [x[0] - 1, x[0] + 1];
  const description = series.map((one) => `${one.label} from ${fixed(one.values[0])} to ${fixed(one.values.at(-1))}`);
  const axes = plot({
    width: 400, height: 220, xRange, yRange, xLabel, title,
    xTicks: roundTicks(...xRange, 6).filter((tick) => xLabel !== "epoch" || Number.isInteger(tick)),
    yTicks: roundTicks(...yRange),
    description: description.join("; "),
  });
  if (band) axes.add(shadedBand(axes, x, band));
  if (mark !== null) axes.add(line(axes.x(mark), axes.y(yRange[0]), axes.x(mark), axes.y(yRange[1]), "target"));
  series.forEach((one, i) => {
    const points = one.values.map((value, at) => [axes.x(x[at]), value === null ? NaN : axes.y(value)]);
    axes.add(path(points, `line ${one.look}`));
    const kind = i ? "circle" : "diamond";
    axes.add(...points.filter(([, y]) => Number.isFinite(y)).map(([px, y]) => marker(kind, px, y, `dot ${one.look}`, 4)));
  });
  const figure = element("figure", {}, element("figcaption", {}, title), axes.root);
  if (series.length === 1) return figure;
  const key = element("p", { class: "legend" });
  legend(key, series.map((one, i) => [`dot ${one.look}`, one.label, i ? "circle" : "diamond"]));
  figure.append(key);
  return figure;
}

function shadedBand(axes, x, { low, high }) {
  const there = x.map((value, i) => [axes.x(value), axes.y(low[i])]);
  const back = x.map((value) => [axes.x(value), axes.y(high)]).reverse();
  const text = [...there, ...back].map(([px, py]) => `${px.toFixed(1)} ${py.toFixed(1)}`).join("L");
  return shape("path", { d: `M${text}Z`, class: "band" });
}

function metricsSection(parts) {
  const present = parts.filter((part) => !part.absent);
  const nodes = parts.filter((part) => part.absent).map((part) => element("p", { class: "absent" }, part.absent));
  if (!present.length) return nodes;
  const rows = present.map(({ name, split, loss, masked, blank }) => {
    const keys = ["accuracy", "auroc", "auprc"];
    const values = keys.map((key) => withInterval(masked.macro[key], masked.macro[`${key}_ci`]));
    return [`${name} (${split})`, fixed(loss), ...values, fixed(blank.macro.auroc), fixed(blank.macro.auprc)];
  });
  const heads = ["Model", "Loss", "Accuracy", "Macro AUROC", "Macro AUPRC"];
  heads.push("AUROC, blanks negative", "AUPRC, blanks negative");
  const caption = "Labels as the policy has them; on the right, each blank counted as a negative";
  return [cardTable(heads, rows, caption), ...present.map(perClass), ...nodes];
}

function perClass({ name, split, masked, blank }) {
  const rows = masked.per_class.map((values, c) => {
    const other = blank.per_class[c];
    const figures = ["auroc", "auprc"].map((key) => withInterval(values[key], values[`${key}_ci`]));
    const counts = [count(values.positives), count(values.negatives)];
    const right = [count(other.negatives), fixed(other.auroc), fixed(other.auprc), fixed(other.prevalence)];
    return [values.name, ...counts, ...figures, fixed(values.prevalence), ...right];
  });
  const heads = ["Finding", "Positives", "Negatives", "AUROC", "AUPRC", "Chance"];
  heads.push(...["Negatives", "AUROC", "AUPRC", "Chance"].map((text) => `${text}, blanks negative`));
  const caption = `${name} on ${split}. Chance: the AUPRC of a random ranking, which equals the prevalence`;
  return element(
    "details", {}, element("summary", {}, `Per finding: ${name} (${split})`), cardTable(heads, rows, caption),
  );
}

function blendSection({ members, weights, alpha, select, curve, gone }) {
  if (!curve) {
    const rows = members.map((name, i) => [name, fixed(weights[i])]);
    const table = cardTable(["Member", "Weight"], rows, "Weights of the blend");
    return gone ? [table, element("p", { class: "absent" }, gone)] : [table];
  }
  const rule = select === "one-se" ? "nearest 0.5 within one standard error of the best" : "the best";
  const words = `p = alpha × ${members[0]} + (1 − alpha) × ${members[1]}. Chosen on validation: alpha ${alpha}, ${rule}.`;
  const best = Math.max(...curve.auprc.filter(Number.isFinite));
  const errors = curve.standard_error;
  const band = errors && { low: errors.map((error) => best - (error ?? 0)), high: best };
  const scores = { auprc: "AUPRC, mean over findings", auroc: "AUROC, mean over findings", accuracy: "accuracy" };
  const charts = Object.entries(scores).map(([key, label]) =>
    lineChart(`Validation ${label}`, curve.alpha, [{ values: curve[key], label, look: "first" }],
      { xLabel: "alpha", mark: alpha, band: key === "auprc" ? band : null }));
  const nodes = [element("p", {}, words), element("div", { class: "charts" }, ...charts)];
  const said = "Shaded: within one standard error of the best. A peak inside it is noise.";
  return errors ? [...nodes, element("p", { class: "muted" }, said)] : nodes;
}

const RELIABILITY_LOOKS = {
  blend: ["first", "the blend, whose thresholds are chosen"],
  before: ["second", "raw sigmoid"],
  after: ["first", "prior corrected"],
};

function reliabilitySection(groups, explorer) {
  const choice = element("select", { id: "reliability-of", autocomplete: "off" }, ...groups.map(({ name }) => element("option", {}, name)));
  const label = element("label", { for: "reliability-of" }, "Probabilities of ");
  const key = element("p", { class: "legend" });
  const panels = element("div", { class: "panels" });
  const show = () => {
    const { classes } = groups[choice.selectedIndex];
    key.replaceChildren();
    legend(key, classes[0].map(({ kind }) => {
      const [look, text] = RELIABILITY_LOOKS[kind];
      return [`dot ${look}`, text, look === "first" ? "diamond" : "circle"];
    }));
    panels.replaceChildren(...classes.map((series, c) => reliabilityPanel(explorer.classes[c].name, series)));
  };
  choice.addEventListener("change", show);
  show();
  const words = `Observed share over predicted probability on ${explorer.eval_split}, in groups of about equal size. ` +
    "On the diagonal, a finding occurs as often as predicted.";
  return [element("p", {}, words), element("p", { class: "choose" }, label, choice), key, panels];
}

function reliabilityPanel(name, series) {
  const ticks = { xTicks: [0, 0.5, 1], yTicks: [0, 0.5, 1], xRange: [0, 1], yRange: [0, 1] };
  const axes = plot({ ...PANEL, ...ticks, xLabel: "predicted", title: `Reliability of ${name}`, description: "" });
  axes.add(line(axes.x(0), axes.y(0), axes.x(1), axes.y(1), "target"));
  for (const { kind, predicted, observed } of series) {
    const [look] = RELIABILITY_LOOKS[kind];
    const points = predicted.map((value, i) => [axes.x(value), axes.y(observed[i])]);
    const shape = look === "first" ? "diamond" : "circle";
    axes.add(path(points, `line ${look}`), ...points.map(([x, y]) => marker(shape, x, y, `dot ${look}`, 4)));
  }
  return element("figure", {}, element("figcaption", {}, name), axes.root);
}
