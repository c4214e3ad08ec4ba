// The threshold explorer: two sliders, a row and a curve per finding.

/** Build the explorer from the page's data and keep it up to date. */
function startExplorer(page) {
  const { explorer } = page;
  const state = {
    target: explorer.start.recalls[0],
    confidence: explorer.start.confidence,
    kept: new Map(), // finding: {confidence, target} it stays at
    prevalence: new Map(), // finding: share, where one was stated
  };
  const rows = buildRows(page, state, () => show());
  const panels = explorer.classes.map((finding) => buildPanel(finding, explorer.eval_split));
  document.getElementById("curves").append(...panels.map((panel) => panel.root));
  buildLegends(explorer);
  let spoken = 0;
  const show = () => {
    showControls(explorer, state);
    const found = explorer.classes.map((finding, c) => {
      const choice = choiceOf(state, c);
      return outcome(finding, choice.confidence, choice.target);
    });
    explorer.classes.forEach((finding, c) => {
      showRow(rows[c], found[c], finding, state, c, explorer);
      showPanel(panels[c], found[c], Number(explorer.recalls[choiceOf(state, c).target]), finding);
    });
    showAny(explorer, state);
    const text = summaryOf(explorer, state, found);
    document.getElementById("summary").textContent = text;
    clearTimeout(spoken); // a reader hears where the slider stops, not every step of the way
    spoken = setTimeout(() => (document.getElementById("live").textContent = text), 500);
    document.getElementById("release").hidden = !state.kept.size;
    document.getElementById("export-note").textContent = "";
  };
  bindControls(page, state, show);
  show();
}

function choiceOf(state, c) {
  return state.kept.get(c) ?? { confidence: state.confidence, target: state.target };
}

function bindControls(page, state, show) {
  const { explorer } = page;
  const dials = { recall: ["target", explorer.recalls], confidence: ["confidence", explorer.confidences] };
  for (const [id, [key, values]] of Object.entries(dials)) {
    const dial = document.getElementById(id);
    dial.max = values.length - 1;
    dial.value = state[key];
    const ends = [values[0], values.at(-1)].map((value) => element("span", {}, id === "recall" ? value : value ? percent(value) : "none"));
    dial.after(element("p", { class: "ends muted", "aria-hidden": "true" }, ...ends));
    dial.addEventListener("input", () => {
      state[key] = Number(dial.value);
      show();
    });
  }
  for (const target of explorer.start.recalls) {
    const button = element("button", { type: "button", "data-target": target }, explorer.recalls[target]);
    button.addEventListener("click", () => {
      Object.assign(state, { target, confidence: explorer.start.confidence });
      document.getElementById("recall").value = state.target;
      document.getElementById("confidence").value = state.confidence;
      show();
    });
    document.getElementById("presets").append(button);
  }
  document.getElementById("release").addEventListener("click", () => {
    state.kept.clear();
    document.querySelectorAll("#findings input[type=checkbox]").forEach((box) => (box.checked = false));
    show();
    document.getElementById("recall").focus();
  });
  document.getElementById("export").addEventListener("click", () => saveThresholds(page, state));
}

function showControls(explorer, state) {
  const confidence = explorer.confidences[state.confidence];
  const together = explorer.settings.family_wise ? ", for all findings together" : "";
  const texts = {
    recall: explorer.recalls[state.target],
    confidence: confidence ? percent(confidence) + together : "none (empirical rule)",
  };
  for (const [id, text] of Object.entries(texts)) {
    document.getElementById(`${id}-value`).textContent = text;
    document.getElementById(id).setAttribute("aria-valuetext", text);
  }
  for (const button of document.querySelectorAll("#presets button")) {
    const same = Number(button.dataset.target) === state.target && state.confidence === explorer.start.confidence;
    button.setAttribute("aria-pressed", same);
  }
}

function summaryOf(explorer, state, found) {
  const target = explorer.recalls[state.target];
  if (found.every((one) => one === null)) {
    return `Recall ${target} can never be promised: aim below 1, or choose the empirical rule.`;
  }
  const feasible = found.map((one, c) => [one, c]).filter(([one]) => one && !one.needed && !Number.isNaN(one.recall));
  const reached = feasible.filter(([one, c]) => one.recall >= Number(explorer.recalls[choiceOf(state, c).target]));
  const infeasible = found.filter((one) => one && one.needed).length;
  const goal = state.kept.size ? "each finding's own target" : `recall ${target}`;
  const held = `On ${explorer.eval_split}, ${goal} is reached in ${reached.length} of ${plural(feasible.length, "finding")}`;
  const any = explorer.any[state.confidence][state.target];
  const text = held + (infeasible ? `; ${infeasible} infeasible, which flag everybody.` : ".");
  if (state.kept.size || !any) return text;
  const [flagged, missed, falsely] = any.map((events) => fixed(ratio(1000 * events, explorer.any_studies), 0));
  return (
    `${text} Of 1,000 studies, ${flagged} get at least one flag, ${falsely} at least one false flag, ` +
    `and ${missed} have at least one finding missed.`
  );
}

function saveThresholds(page, state) {
  const note = document.getElementById("export-note");
  const choices = page.explorer.classes.map((_, c) => choiceOf(state, c));
  const content = thresholdsFile(page, choices);
  if (content === null) {
    note.textContent = "Nothing was saved: recall 1 can never be promised. Aim below 1, or choose the empirical rule.";
    return;
  }
  const url = URL.createObjectURL(new Blob([JSON.stringify(content, null, 2) + "\n"], { type: "application/json" }));
  element("a", { href: url, download: "thresholds.json" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
  const target = Object.keys(content.recall)[0];
  note.textContent = `Saved for recall ${target}. Use it with: python predict.py --thresholds thresholds.json`;
}

// ---- The table

function buildRows(page, state, show) {
  const { eval_split: evalSplit, classes } = page.explorer;
  const heads = [
    ["Finding", "Threshold", `Recall on ${evalSplit}`, `Precision on ${evalSplit}`].map((text) => head(text, { rowspan: 2 })),
    ["Missed", "Falsely flagged", "Flagged"].map((text) => head(text, { class: "num" })),
  ];
  heads[0].push(head("Per 1,000 labeled studies", { colspan: 4, scope: "colgroup", class: "group" }));
  heads[0].push(head("Precision at a prevalence of", { rowspan: 2 }), head("Keep", { rowspan: 2, class: "keep" }));
  const table = document.getElementById("findings");
  table.append(element("thead", { role: "rowgroup" }, ...heads.map((cells) => row(...cells))));
  heads[1][0].before(element("td", { class: "bars" }));
  const rows = classes.map((finding, c) => buildRow(finding, c, page.explorer, state, show));
  table.append(element("tbody", { role: "rowgroup" }, ...rows.map((one) => one.root)));
  const any = Array.from({ length: 3 }, (_, i) => cell(["Missed", "Falsely flagged", "Flagged"][i], "num"));
  any.forEach((one, i) => (one.id = ["any-missed", "any-false", "any-flagged"][i]));
  const blank = element("td", { colspan: 4, class: "blank" });
  const last = [element("th", { scope: "row", role: "rowheader" }, "At least one finding"), blank, ...any];
  last.push(element("td", { colspan: 2, class: "blank" }));
  table.append(element("tfoot", { role: "rowgroup" }, row(...last)));
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

function buildRow(finding, c, explorer, state, show) {
  const { eval_split: evalSplit } = explorer;
  const cells = {
    threshold: cell("Threshold", "num"),
    recall: cell(`Recall on ${evalSplit}`),
    precision: cell(`Precision on ${evalSplit}`),
    bar: cell("Of 1,000 studies", "bars"),
    missed: cell("Missed per 1,000", "num"),
    falselyFlagged: cell("Falsely flagged per 1,000", "num"),
    flagged: cell("Flagged per 1,000", "num"),
    there: cell("Precision at a prevalence of", "there"),
    keep: cell("Keep as it is", "keep"),
  };
  const status = element("span", { class: "status" });
  const positives = `${plural(finding.val.positives, "positive")} of ${plural(finding.val.patients, "patient")} in val`;
  const about = element("span", { class: "muted" }, positives);
  const root = row(element("th", { scope: "row", role: "rowheader" }, finding.name, about, status));
  root.append(...Object.values(cells));
  const there = element("output", {});
  cells.there.append(prevalenceField(finding, c, explorer, state, show), there);
  const kept = element("span", { class: "muted" });
  const box = element("input", { type: "checkbox", autocomplete: "off", "aria-label": `Keep ${finding.name} at its target` });
  box.addEventListener("change", () => {
    if (box.checked) state.kept.set(c, choiceOf(state, c));
    else state.kept.delete(c);
    show();
  });
  cells.keep.append(element("label", {}, box, kept));
  return { root, cells, status, there, kept };
}

function prevalenceField(finding, c, explorer, state, show) {
  const here = prevalenceOf(finding);
  const field = element("input", {
    type: "number", autocomplete: "off", min: 0, max: 1, step: 0.001, inputmode: "decimal",
    placeholder: fixed(here),
    "aria-label": `Prevalence of ${finding.name}, a share; in ${explorer.eval_split} it is ${fixed(here)}`,
  });
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

function showRow(row, found, finding, state, c, explorer) {
  const { cells } = row;
  const choice = choiceOf(state, c);
  const kept = state.kept.has(c);
  row.root.classList.toggle("kept", kept);
  row.root.classList.toggle("infeasible", Boolean(found && found.needed));
  const level = explorer.confidences[choice.confidence];
  row.kept.textContent = kept ? `${explorer.recalls[choice.target]} at ${level ? percent(level) : "empirical"}` : "";
  if (!found) {
    for (const key of Object.keys(cells)) if (!["there", "keep"].includes(key)) cells[key].textContent = "n/a";
    row.status.textContent = "cannot be promised";
    row.there.textContent = "";
    return;
  }
  cells.threshold.textContent = fixed(found.threshold);
  const lower = found.lower === null ? "" : `, at least ${fixed(found.lower)}`;
  const small = (text) => element("span", { class: "muted" }, text);
  const recall = withInterval(found.recall, found.recallInterval);
  cells.recall.replaceChildren(recall, small(`val ${fixed(found.valRecall)}${lower}`));
  const precision = withInterval(found.precision, found.precisionInterval);
  cells.precision.replaceChildren(precision, small(`val ${fixed(found.valPrecision)}`));
  for (const key of ["missed", "falselyFlagged", "flagged"]) cells[key].textContent = fixed(found[key], 0);
  cells.bar.replaceChildren(studyBar(found, finding.name));
  row.status.textContent = statusOf(found);
  row.status.classList.toggle("plain", statusOf(found) === "ok");
  const stated = state.prevalence.get(c);
  row.there.textContent = stated === undefined ? "" : fixed(precisionAt(found, stated));
}

function studyBar(found, name) {
  const parts = [
    ["found", "found", found.flagged - found.falselyFlagged],
    ["false", "falsely flagged", found.falselyFlagged],
    ["missed", "missed", found.missed],
  ].map(([look, label, events]) => ({ look, label, share: events / 1000, text: fixed(events, 0) }));
  return stackedBar(parts, `${name}, of 1,000 studies`);
}

function showAny(explorer, state) {
  const any = state.kept.size ? null : explorer.any[state.confidence][state.target];
  ["any-flagged", "any-missed", "any-false"].forEach((id, i) => {
    document.getElementById(id).textContent = any ? fixed(ratio(1000 * any[i], explorer.any_studies), 0) : "n/a";
  });
}

// ---- The curves

function buildLegends(explorer) {
  legend(document.getElementById("legend"), [
    ["found", "found"],
    ["false", "falsely flagged"],
    ["missed", "missed"],
    ["rest", "neither, of 1,000 studies"],
  ]);
  const intervals = explorer.settings.resamples ? ", with 95% intervals" : "";
  legend(document.getElementById("curves-legend"), [
    ["point", `the chosen threshold on ${explorer.eval_split}${intervals}`, "diamond"],
    ["point hollow", "infeasible: flags all", "circle"],
    ["curve", `precision over recall, ${explorer.eval_split}`, "line"],
    ["target", "recall target", "line"],
    ["chance", "chance (prevalence)", "line"],
  ]);
}

function buildPanel(finding, evalSplit) {
  const { recall, precision } = finding.curve;
  const yLabel = `precision over recall on ${evalSplit}`;
  const axes = plot({ title: finding.name, xLabel: `recall (${evalSplit})`, yLabel });
  const chance = axes.y(prevalenceOf(finding));
  if (Number.isFinite(chance)) axes.add(line(axes.x(0), chance, axes.x(1), chance, "chance"));
  const steps = recall.flatMap((x, i) => [
    [axes.x(i ? recall[i - 1] : 0), axes.y(precision[i])],
    [axes.x(x), axes.y(precision[i])],
  ]);
  const moving = {
    target: line(0, axes.y(0), 0, axes.y(1), "target"),
    across: line(0, 0, 0, 0, "error"),
    upright: line(0, 0, 0, 0, "error"),
    point: shape("path", { class: "point" }),
    ring: shape("circle", { r: 4.5, class: "point hollow" }),
  };
  axes.add(path(steps, "curve"), ...Object.values(moving));
  if (!recall.length) axes.add(shape("text", { x: axes.x(0.5), y: axes.y(0.5), "text-anchor": "middle" }, "not defined"));
  const said = element("span", { class: "muted" });
  const root = element("figure", {}, element("figcaption", {}, finding.name, said), axes.root);
  return { root, axes, moving, said };
}

function showPanel({ axes, moving, said }, found, target, finding) {
  place(moving.target, { x1: axes.x(target), x2: axes.x(target) });
  const there = found !== null && Number.isFinite(found.recall) && Number.isFinite(found.precision);
  const feasible = there && !found.needed;
  moving.point.toggleAttribute("hidden", !feasible);
  moving.ring.toggleAttribute("hidden", !there || feasible);
  const crossed = there && found.recallInterval !== null && !found.recallInterval.includes(null);
  for (const part of [moving.across, moving.upright]) part.toggleAttribute("hidden", !crossed || !feasible);
  const status = found ? statusOf(found) : "cannot be promised";
  said.textContent = status === "ok" ? "" : status;
  if (!there) return;
  const [x, y] = [axes.x(found.recall), axes.y(found.precision)];
  place(moving.point, { d: diamond(x, y) });
  place(moving.ring, { cx: x, cy: y });
  if (crossed) {
    place(moving.across, { x1: axes.x(found.recallInterval[0]), x2: axes.x(found.recallInterval[1]), y1: y, y2: y });
    const reach = found.precisionInterval.map((value) => axes.y(value));
    place(moving.upright, { x1: x, x2: x, y1: reach[0], y2: reach[1] });
  }
  const words = `Recall ${fixed(found.recall)}, precision ${fixed(found.precision)}, target ${target}`;
  axes.root.querySelector("desc").textContent = words;
  axes.root.setAttribute("aria-label", `Precision over recall, ${finding.name}. ${words}`);
}

function place(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
}
