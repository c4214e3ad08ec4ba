// The threshold explorer: a slider, and a row and a curve per finding.

const EVENTS = ["Flagged", "Missed", "Falsely flagged"];

/** Build the explorer from the page's data and keep it up to date. */
function startExplorer(page) {
  const { explorer } = page;
  const state = {
    target: explorer.targets.findIndex((target) => target.figures),
    kept: new Map(), // finding: the target it stays at
    prevalence: new Map(), // finding: share, where one was stated
  };
  const cells = buildTable(explorer, state, () => show());
  buildLegend(explorer);
  let spoken = 0;
  const current = () => explorer.classes.map((_, c) => rowOf(explorer, state, c));
  const show = () => {
    const rows = current();
    showControls(explorer, state);
    rows.forEach((row, c) => showRow(cells[c], row, explorer, state, c));
    showAny(explorer, state);
    document.getElementById("curves").replaceChildren(...rows.map((row, c) => panel(explorer.classes[c], row)));
    const text = summaryOf(explorer, state, rows);
    document.getElementById("summary").textContent = text;
    clearTimeout(spoken); // a reader hears where the slider stops, not every step of the way
    spoken = setTimeout(() => (document.getElementById("live").textContent = text), 500);
    document.getElementById("release").hidden = !state.kept.size;
    document.getElementById("export-note").textContent = "";
  };
  bindControls(explorer, state, show);
  document.getElementById("export").addEventListener("click", () => saveThresholds(page, current()));
  show();
}

function bindControls({ targets }, state, show) {
  const dial = document.getElementById("recall");
  const move = (target) => {
    state.target = target;
    dial.value = target;
    show();
  };
  dial.max = targets.length - 1;
  dial.value = state.target;
  const ends = [targets[0], targets.at(-1)].map((target) => element("span", {}, target.recall));
  dial.after(element("p", { class: "ends muted", "aria-hidden": "true" }, ...ends));
  dial.addEventListener("input", () => move(Number(dial.value)));
  targets.forEach((target, index) => {
    if (!target.figures) return;
    const button = element("button", { type: "button", "data-target": index }, target.recall);
    button.addEventListener("click", () => move(index));
    document.getElementById("presets").append(button);
  });
  document.getElementById("release").addEventListener("click", () => {
    state.kept.clear();
    document.querySelectorAll("#findings input[type=checkbox]").forEach((box) => (box.checked = false));
    show();
    dial.focus();
  });
}

function showControls(explorer, state) {
  const target = explorer.targets[state.target];
  const together = explorer.recorded.family_wise ? " for all findings together" : "";
  const rule = target.confidence ? `${percent(target.confidence)} confidence${together}` : "empirical rule";
  const split = target.figures ? explorer.evaluated : explorer.chosen_on;
  document.getElementById("recall-value").textContent = target.recall;
  document.getElementById("recall").setAttribute("aria-valuetext", target.recall);
  document.getElementById("terms").textContent = `${rule}, figures of ${split}`;
  document.getElementById("promise").textContent = `${whoseRecall(explorer)} ${promiseOf(explorer, target)}`;
  for (const button of document.querySelectorAll("#presets button")) {
    button.setAttribute("aria-pressed", Number(button.dataset.target) === state.target);
  }
}

function whoseRecall({ chosen_on: chosenOn, recorded: { unit, weights } }) {
  if (weights === "patient") return `Recall (sensitivity) is that of a random ${unit} of a random patient.`;
  return `Recall (sensitivity) is that of the next ${unit}, drawn as those of ${chosenOn} were.`;
}

function promiseOf({ chosen_on: chosenOn, evaluated, targets }, target) {
  const given = targets.filter((one) => one.figures).map((one) => one.recall).join(" and ");
  const only = evaluated === "test" ? ` Test figures are shown only at what the threshold search was given: ${given}.` : "";
  if (!target.confidence) {
    const empirical = `The empirical rule was used: recall on ${chosenOn} reaches the target, and nothing is promised for new patients.`;
    return target.figures ? empirical : empirical + only;
  }
  if (target.figures) {
    return "The threshold search was given this target, and its promise holds if it was fixed before its figures were seen.";
  }
  return `A target that is chosen on this page is certified with ${percent(target.confidence)} confidence, with which ` +
    "recall reaches all targets from 0.50 to 0.99 together in 95% of the simulated cases or more, at a cost of " +
    `5 points of precision with 50 positives and of 2 points with 300.${only}`;
}

function summaryOf(explorer, state, rows) {
  const target = explorer.targets[state.target];
  const split = target.figures ? explorer.evaluated : explorer.chosen_on;
  const goal = state.kept.size ? "each finding's own target" : `recall ${target.recall}`;
  const text = `On ${split}, at ${goal}: ${countVerdicts(rows)}.`;
  if (state.kept.size) return text;
  const [flagged, missed, falsely] = perThousand(target.work[split][1].at(-1));
  return `${text} Of 1,000 ${several(explorer.recorded.unit)}, each blank a negative, ${flagged} get at least one flag, ` +
    `${falsely} at least one false flag, and ${missed} have at least one finding missed.` +
    (rows.some((row) => row.verdict === "infeasible") ? " An infeasible finding flags them all." : "");
}

function saveThresholds(page, rows) {
  const content = thresholdsFile(page, rows);
  const url = URL.createObjectURL(new Blob([JSON.stringify(content, null, 2) + "\n"], { type: "application/json" }));
  element("a", { href: url, download: "thresholds.json" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
  document.getElementById("export-note").textContent =
    `Saved for recall ${Object.keys(content.recall)[0]}. Use it with: python predict.py --thresholds thresholds.json`;
}

// ---- The table

function buildTable(explorer, state, show) {
  const units = several(explorer.recorded.unit);
  const groups = [`Per 1,000 labeled ${units}`, `Per 1,000 ${units}, blanks negative`];
  const wide = (text) => head(text, { colspan: 3, scope: "colgroup", class: "group" });
  const tall = (text, attributes = {}) => head(text, { rowspan: 2, ...attributes });
  const first = [...["Finding", "Threshold", "Recall", "Precision", "Verdict"].map((text) => tall(text))];
  first.push(...groups.map(wide), tall("Precision at a prevalence of"), tall("Keep", { class: "keep" }));
  const second = groups.flatMap(() => EVENTS.map((text) => head(text, { class: "num" })));
  const workload = () => ["labeled", "all"].flatMap((view) => EVENTS.map((text) => {
    const label = `${text} per 1,000 ${view === "labeled" ? "labeled" : "in all"}`;
    return element("td", { role: "cell", class: "num", "data-label": label, "data-view": view });
  }));
  const rows = explorer.classes.map((finding, c) => buildRow(finding, c, workload(), state, show));
  const any = workload();
  const last = row(
    element("th", { scope: "row", role: "rowheader" }, "At least one finding"),
    element("td", { colspan: 4, class: "blank" }), ...any, element("td", { colspan: 2, class: "blank" }),
  );
  last.id = "any";
  document.getElementById("findings").append(
    element("thead", { role: "rowgroup" }, row(...first), row(...second)),
    element("tbody", { role: "rowgroup" }, ...rows.map((one) => one.root)),
    element("tfoot", { role: "rowgroup" }, last),
  );
  return rows;
}

function head(text, attributes = {}) {
  return element("th", { scope: "col", role: "columnheader", ...attributes }, text);
}

function row(...cells) {
  return element("tr", { role: "row" }, ...cells);
}

function cell(label, look = "", ...children) {
  return element("td", { role: "cell", class: look, "data-label": label }, ...children);
}

function buildRow({ name }, c, workload, state, show) {
  const about = element("span", { class: "muted" });
  const status = element("span", { class: "status" });
  const [threshold, recall, precision, verdict] =
    [["Threshold", "num"], ["Recall"], ["Precision"], ["Verdict"]].map((label) => cell(...label));
  const there = element("output", {});
  const field = prevalenceField(c, state, show);
  const kept = element("span", { class: "muted" });
  const box = element("input", { type: "checkbox", autocomplete: "off", "aria-label": `Keep ${name} at its target` });
  box.addEventListener("change", () => {
    if (box.checked) state.kept.set(c, state.target);
    else state.kept.delete(c);
    show();
  });
  const root = row(
    element("th", { scope: "row", role: "rowheader" }, name, about, status),
    threshold, recall, precision, verdict, ...workload,
    cell("Precision at a prevalence of", "there", field, there),
    cell("Keep as it is", "keep", element("label", {}, box, kept)),
  );
  return { root, about, status, threshold, recall, precision, verdict, workload, field, there, kept };
}

function prevalenceField(c, state, show) {
  const field = element("input", { type: "number", autocomplete: "off", min: 0, max: 1, step: 0.001, inputmode: "decimal" });
  field.addEventListener("input", () => {
    const share = Number(field.value);
    const stated = field.value !== "" && share > 0 && share < 1;
    const wrong = !stated && (field.value !== "" || field.validity.badInput);
    if (wrong) field.setAttribute("aria-invalid", "true");
    else field.removeAttribute("aria-invalid");
    field.title = wrong ? "a share above 0 and below 1, such as 0.05" : "";
    if (stated) state.prevalence.set(c, share);
    else state.prevalence.delete(c);
    show();
  });
  return field;
}

function showRow(cells, found, { chosen_on: chosenOn, classes }, state, c) {
  const { target, point, split, labeled, all } = found;
  const kept = state.kept.has(c);
  const small = (text) => element("span", { class: "muted" }, text);
  const own = (value) => `on ${split}` + (split === chosenOn ? "" : `; ${chosenOn} ${fixed(value)}`);
  const lower = point.recall_lower === null ? "" : `, at least ${fixed(point.recall_lower)}`;
  cells.root.classList.toggle("kept", kept);
  const level = target.confidence ? percent(target.confidence) : "empirical";
  cells.kept.textContent = kept ? `${target.recall} at ${level}` : "";
  const here = `${plural(point.positives, "positive")} of ${plural(classes[c].patients, "patient")} in ${chosenOn}`;
  cells.about.textContent = `${here}; ${count(labeled[0])} labeled in ${split}`;
  cells.status.textContent = found.status;
  cells.status.classList.toggle("plain", found.status === "ok");
  cells.threshold.textContent = fixed(point.threshold);
  cells.recall.replaceChildren(withInterval(found.recall, found.recall_ci), small(own(point.recall) + lower));
  cells.precision.replaceChildren(withInterval(found.precision, found.precision_ci), small(own(point.precision)));
  cells.verdict.textContent = VERDICTS.includes(found.verdict) ? found.verdict : "-";
  cells.verdict.className = found.verdict === VERDICTS[0] ? "contradicted" : "";
  fill(cells.workload, [labeled, all]);
  const prevalence = fixed(classes[c].prevalence[split]);
  cells.field.placeholder = prevalence;
  cells.field.setAttribute("aria-label", `Prevalence of ${classes[c].name}, a share; in ${split} it is ${prevalence}`);
  const stated = state.prevalence.get(c);
  cells.there.textContent = stated === undefined ? "" : fixed(precisionAt(found, stated));
}

/** Workload cells from the counts of both views, or n/a without them. */
function fill(cells, views) {
  const texts = views ? views.flatMap(perThousand) : cells.map(() => "n/a");
  cells.forEach((one, i) => (one.textContent = texts[i]));
}

function showAny(explorer, state) {
  const target = explorer.targets[state.target];
  const views = target.work[target.figures ? explorer.evaluated : explorer.chosen_on];
  fill([...document.querySelectorAll("#any [data-view]")], state.kept.size ? null : views.map((counts) => counts.at(-1)));
}

// ---- The curves

function buildLegend({ chosen_on: chosenOn }) {
  legend(document.getElementById("curves-legend"), [
    ["point", "the chosen threshold on the split that is named above the curve, with 95% intervals at the targets of the threshold search", "diamond"],
    ["point hollow", "infeasible: flags all", "circle"],
    ["curve", `precision over recall on ${chosenOn}`, "line"],
    ["target", "recall target", "line"],
    ["chance", "chance (prevalence)", "line"],
  ]);
}

/** A finding's curve on the split in which thresholds are chosen, and the point on the split that its row shows. */
function panel(finding, { target, point, split, status, recall, precision, recall_ci: across, precision_ci: upright }) {
  const { curve } = finding;
  const prevalence = finding.prevalence[split];
  const aim = Number(target.recall);
  const words = `Recall ${fixed(recall)}, precision ${fixed(precision)} on ${split}, target ${target.recall}`;
  const axes = plot({ title: `Precision over recall, ${finding.name}`, words, xLabel: "recall", yLabel: "precision" });
  if (Number.isFinite(prevalence)) {
    axes.add(line(axes.x(0), axes.y(prevalence), axes.x(1), axes.y(prevalence), "chance"));
  }
  curve.drawn ??= path(curve.recall.flatMap((x, i) => [
    [axes.x(i ? curve.recall[i - 1] : 0), axes.y(curve.precision[i])],
    [axes.x(x), axes.y(curve.precision[i])],
  ]), "curve");
  axes.add(line(axes.x(aim), axes.y(0), axes.x(aim), axes.y(1), "target"), curve.drawn);
  if (!curve.recall.length) axes.add(shape("text", { x: axes.x(0.5), y: axes.y(0.5), "text-anchor": "middle" }, "not defined"));
  if (recall !== null && precision !== null) {
    const [x, y] = [axes.x(recall), axes.y(precision)];
    const feasible = point.status === "ok";
    if (feasible && across) axes.add(line(axes.x(across[0]), y, axes.x(across[1]), y, "error"));
    if (feasible && upright) axes.add(line(x, axes.y(upright[0]), x, axes.y(upright[1]), "error"));
    axes.add(feasible ? shape("path", { d: diamond(x, y), class: "point" })
      : shape("circle", { cx: x, cy: y, r: 4.5, class: "point hollow" }));
  }
  const said = element("span", { class: "muted" }, status === "ok" ? `on ${split}` : `on ${split}; ${status}`);
  return element("figure", {}, element("figcaption", {}, finding.name, said), axes.root);
}
