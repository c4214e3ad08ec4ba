// What runs when the page opens.

/** How the numbers came to be, in sentences. */
function readingNotes({ explorer }) {
  const { chosen_on: chosenOn, evaluated, recorded } = explorer;
  const { unit, aggregate, weights, confidence } = recorded;
  const units = several(unit);
  const counted = unit === "study" ? `The probability of a study is the ${aggregate} over its images. ` : "";
  const chosen = `${counted}Thresholds are chosen on ${chosenOn} alone: of all thresholds that reach the target, the most precise.`;
  const whose = weights === "patient" ? `one random ${unit} of each patient` : `future ${units}`;
  const promise = confidence
    ? `The promise is about average recall over ${whose}, and not about each group of patients. The confidence is over ` +
      `the draw of the patients of ${chosenOn}: in at least ${percent(confidence)} of such draws, the threshold that is ` +
      "chosen has a recall of at least the target."
    : `The empirical rule asks that recall on ${chosenOn} itself reaches the target. It promises nothing: on new patients ` +
      "the target is reached in about half of the cases or fewer.";
  const free = confidence && "Choosing the most precise of many certified thresholds costs no confidence, because the " +
    "lower bound on recall only falls as the threshold rises: the choice can fail only if the one threshold at which " +
    "true recall equals the target was certified.";
  const fixedBefore = confidence && "A target must be fixed before its figures are seen. In simulations at 95% " +
    "confidence, recall fell short in 4% to 12% of the cases where the target was picked by F1 or F2, and at one or more " +
    "of the targets from 0.50 to 0.99 in 11% to 30% (standard error at most 1.5 points). Therefore a target that is " +
    "chosen here is certified with at least 99.5%.";
  const verdicts = evaluated === "test" &&
    "Verdicts, each with 95% confidence: contradicted, test shows that recall is below the target; confirmed, test shows " +
    "that recall is at least the target; consistent, test shows neither.";
  const views = `Work is counted twice: among the ${units} with a label, and among all, where each blank is a negative ` +
    "and every flag counts. Intervals are 95%, with the patients as clusters.";
  const infeasible = `A finding is infeasible where too few patients have it in ${chosenOn} to promise the target. It ` +
    `then flags every ${unit}, and the page says how many more positive patients it would take.`;
  const marked = recorded.no_finding === "negative" ? ", a blank of an image marked “No Finding” as 0" : "";
  const policy = `Labels: an uncertain one counts as ${recorded.uncertain.join(" ")}${marked}, a blank as ` +
    `${recorded.missing.join(" ")} (mask: left out).`;
  const prevalence = "With a prevalence of your own, a share such as 0.05, precision follows from recall and " +
    "specificity by Bayes' rule; both are taken to be the same there.";
  const keep = "Keep holds a finding at its target while the slider moves on; the saved file has what each finding shows.";
  return [chosen, promise, free, fixedBefore, verdicts, views, infeasible, policy, prevalence, keep].filter(Boolean);
}

function start() {
  const page = JSON.parse(document.getElementById("page-data").textContent);
  const { explorer } = page;
  document.getElementById("run-name").textContent = page.run;
  const sizes = page.data.absent ? null : page.data.sizes.at(-1);
  const facts = [plural(explorer.classes.length, "finding")];
  if (sizes) facts.unshift(page.data.dataset, plural(sizes[1], "image"), plural(sizes[3], "patient"));
  document.getElementById("run-facts").textContent = facts.join(" · ");
  startExplorer(page);
  document.getElementById("reading").append(...readingNotes(page).map((text) => element("p", {}, text)));
  section("subgroups", page.subgroups, subgroupsSection);
  if (page.readers.length) section("readers", page.readers, (pictures) => [figures(pictures)]);
  else document.getElementById("readers").remove();
  section("data", page.data, dataSection);
  section("labels", page.labels, (pictures) => [figures(pictures)]);
  section("training", page.histories, trainingSection);
  section("metrics", page.metrics, metricsSection);
  section("blend", page.alpha, blendSection);
  section("reliability", page.reliability, reliabilitySection);
  for (const title of document.querySelectorAll("main section > h1, main section > h2[id$=title]")) {
    const id = title.parentElement.id;
    if (title.id !== `${id}-title`) continue;
    const text = id === "explorer" ? "Thresholds" : title.textContent;
    document.getElementById("contents").append(element("li", {}, element("a", { href: `#${id}` }, text)));
  }
  document.getElementById("foot").textContent =
    "Made by report.py from the files of this run. For research; nothing here is a medical device.";
  openForPrint();
}

/** On paper nothing can be unfolded, so all is. */
function openForPrint() {
  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((one) => (one.open = true));
  });
  window.addEventListener("afterprint", () => closed.forEach((one) => (one.open = false)));
}

start();
