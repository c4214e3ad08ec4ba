// What stage 6 would say: looked up, never estimated here.

const VERDICTS = ["contradicted", "confirmed", "consistent"];

/**
 * What a finding shows: figures of the evaluated split if the slider and the finding are both at a target that stage 6
 * was given, else those of the split that thresholds are chosen on.
 */
function rowOf(explorer, state, c) {
  const target = explorer.targets[state.kept.get(c) ?? state.target];
  const point = target.points[c];
  const figures = explorer.targets[state.target].figures && target.figures && target.figures[c];
  const split = figures ? explorer.evaluated : explorer.chosen_on;
  const [labeled, all] = target.work[split].map((counts) => counts[c]);
  const own = {
    recall: point.recall,
    precision: point.precision,
    specificity: 1 - ratio(labeled[3], labeled[0] - point.positives),
  };
  const feasible = point.status === "ok";
  const tested = split === "test" ? figures.verdict || "without positives on test" : "feasible";
  return {
    target, point, split, labeled, all, ...(figures || own),
    verdict: feasible ? tested : "infeasible",
    status: feasible
      ? labeled[0] && labeled[0] === labeled[1] ? "ok, flags all" : "ok"
      : `infeasible, flags all: ${plural(point.positives_needed, "more positive patient")} needed`,
  };
}

/** Flagged, missed and falsely flagged per 1,000 of the units that were counted. */
function perThousand([units, ...events]) {
  return events.map((number) => fixed(ratio(1000 * number, units), 0));
}

/** `contradicted 0, confirmed 1, consistent 1, infeasible 2`, as stage 6 counts the findings. */
function countVerdicts(rows) {
  const words = rows.some((row) => row.split === "test") ? [...VERDICTS, "infeasible"] : ["feasible", "infeasible"];
  const found = rows.map((row) => row.verdict);
  const shown = [...new Set([...VERDICTS, "feasible", "infeasible", ...found])]
    .filter((word) => words.includes(word) || found.includes(word));
  return shown.map((word) => `${word} ${found.filter((one) => one === word).length}`).join(", ");
}

/** Precision where the finding has another prevalence (Bayes' rule), recall and specificity being the same. */
function precisionAt({ recall, specificity }, prevalence) {
  if (recall === null || specificity === null) return NaN;
  const [hits, falsely] = [recall * prevalence, (1 - specificity) * (1 - prevalence)];
  return hits + falsely > 0 ? hits / (hits + falsely) : NaN;
}

/**
 * The content of a thresholds.json as stage 6 writes it. It has one target: the lowest chosen, with the lowest
 * confidence, which every finding then keeps. "report" says what was chosen for each.
 */
function thresholdsFile({ run, explorer }, rows) {
  const byName = (values) => Object.fromEntries(explorer.classes.map(({ name }, c) => [name, values[c]]));
  const chosen = rows.map(({ target }) => ({ recall: Number(target.recall), confidence: target.confidence }));
  const lowest = rows.reduce((least, { target }) => (Number(target.recall) < Number(least) ? target.recall : least), "1");
  return {
    ...explorer.recorded,
    confidence: explorer.recorded.confidence && Math.min(...chosen.map((one) => one.confidence)),
    recall: { [lowest]: byName(rows.map((row) => row.point)) },
    report: { run, chosen: byName(chosen) },
  };
}
