// What runs when the page opens.

/** How the numbers came to be, in sentences. */
function readingNotes({ explorer }) {
  const { eval_split: evalSplit, settings } = explorer;
  const chosen = "Thresholds are chosen on validation alone, by the rule of ensemble_threshold_search.py: of all " +
    "thresholds whose recall on new patients is at least the target with the confidence asked for, the most precise. " +
    "Without a confidence, recall on validation itself must reach the target, which holds on new patients in half of the cases or fewer.";
  const evaluatedOn = evalSplit === "test"
    ? "Recall, precision and workload are those of the test split; the small line gives validation, and the lower " +
      "bound on recall that the rule asks for."
    : "No test data was given: recall, precision and workload are figures of the data the thresholds were chosen on.";
  const infeasible = "A finding is infeasible where too few patients have it in validation to promise the target. It " +
    "then flags everybody, and the page says how many more positive patients it would take.";
  const intervals = settings.resamples
    ? `Intervals are 95%, from ${count(settings.resamples)} resamples of the patients (seed ${settings.seed}).`
    : "No intervals were computed.";
  const policy = `Labels: an uncertain one counts as ${settings.uncertain.join(" ")}, a blank as ` +
    `${settings.missing.join(" ")} (mask: left out).`;
  const prevalence = "With a prevalence of your own, a share such as 0.05, precision follows from recall and " +
    "specificity by Bayes' rule; both are taken to be the same there. Study counts stay those of this data.";
  const keep = "Keep holds a finding at its target and confidence while the sliders move on; the saved file has what " +
    "each finding shows.";
  return [chosen, evaluatedOn, infeasible, intervals, policy, prevalence, keep];
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
