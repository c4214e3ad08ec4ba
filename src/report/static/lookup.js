// What stage 6 would say: looked up, never estimated here.

/** What a finding's threshold does for one confidence and target (both as indexes); null where none is promised. */
function outcome(finding, confidence, target) {
  const chosen = finding.chosen[confidence][target];
  if (chosen < 0) return null;
  const [at, lower, needed] = finding.choices[chosen];
  const { val, eval_split: evalSplit, studies } = finding;
  const [tp, fp] = [evalSplit.tp[at], evalSplit.fp[at]];
  const interval = evalSplit.intervals ? evalSplit.intervals[at] : null;
  const perThousand = (events) => ratio(1000 * events[at], studies.valid);
  return {
    threshold: finding.thresholds[at],
    needed,
    lower,
    flagsAll: tp + fp === evalSplit.positives + evalSplit.negatives,
    valPrecision: ratio(val.tp[at], val.tp[at] + val.fp[at]),
    valRecall: ratio(val.tp[at], val.positives),
    precision: ratio(tp, tp + fp),
    recall: ratio(tp, evalSplit.positives),
    specificity: 1 - ratio(fp, evalSplit.negatives),
    precisionInterval: interval && interval.slice(0, 2),
    recallInterval: interval && interval.slice(2),
    flagged: perThousand(studies.flagged),
    missed: perThousand(studies.missed),
    falselyFlagged: perThousand(studies.false),
  };
}

/** Share of positives among the labeled images the thresholds are evaluated on. */
function prevalenceOf(finding) {
  return ratio(finding.eval_split.positives, finding.eval_split.positives + finding.eval_split.negatives);
}

/** Precision where the finding has another prevalence (Bayes' rule), recall and specificity being the same. */
function precisionAt({ recall, specificity }, prevalence) {
  const [hits, falsely] = [recall * prevalence, (1 - specificity) * (1 - prevalence)];
  return hits + falsely > 0 ? hits / (hits + falsely) : NaN;
}

/** The words stage 6 has for how a choice went. */
function statusOf(found) {
  if (found.needed) return `infeasible, flags all: ${count(found.needed)} more positive patients needed`;
  return found.flagsAll ? "ok, flags all" : "ok";
}

/**
 * The content of a thresholds.json as stage 6 writes it, for one choice {confidence, target} per finding.
 * It has one target: the lowest chosen, with the lowest confidence, which every finding then keeps. "report"
 * says what was chosen for each. Null where a finding has no choice.
 */
function thresholdsFile(page, choices) {
  const { explorer } = page;
  const { recalls, confidences, settings, origin, classes } = explorer;
  const points = classes.map((finding, c) => operatingPoint(finding, choices[c]));
  if (points.includes(null)) return null;
  const byName = (values) => Object.fromEntries(classes.map((finding, c) => [finding.name, values[c]]));
  const targets = choices.map((choice) => ({
    recall: Number(recalls[choice.target]),
    confidence: confidences[choice.confidence],
  }));
  const { assumed, ...recorded } = settings;
  for (const name of assumed) delete recorded[name];
  const lowest = recalls[Math.min(...choices.map((choice) => choice.target))];
  const confidence = Math.min(...targets.map((target) => target.confidence)); // 0: the empirical rule
  return {
    ...recorded,
    rule: confidence ? "certified" : "empirical",
    confidence: confidence || null,
    ...origin,
    classes: classes.map((finding) => finding.name),
    recall: { [lowest]: byName(points) },
    report: { run: page.run, chosen: byName(targets) },
  };
}

function operatingPoint(finding, { confidence, target }) {
  const found = outcome(finding, confidence, target);
  return found && {
    threshold: found.threshold,
    precision: found.valPrecision,
    recall: found.valRecall,
    recall_lower: found.lower,
    positives: finding.val.positives,
    status: found.needed ? "infeasible" : "ok",
    positives_needed: found.needed,
  };
}
