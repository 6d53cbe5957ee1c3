#include "client/cli/report_style.h"

namespace zcbroker::cli {

// Phases are told apart by people who see few colours, too; the red of what
// failed is hatched beside.
const char kReportStyle[] = R"css(
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1c2127; --soft: #5b6670; --line: #d9dee3; --rail: #f0f2f4;
  --good: #0a6b4b; --bad: #b3261e; --bad-paper: #fdecea; --good-paper: #e7f5ef;
  --starting: #e69f00; --ready: #0f8a63; --draining: #56a5d8; --wedged: #c4509a; --failed: #d13438;
  --look: #7a8793; --spawn: #e69f00; --bind: #2f78c4; --probe: #0f8a63; --publish: #c4509a; --other: #a0a7ae;
  --count: #2f78c4;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15191d; --ink: #e4e8ec; --soft: #9aa5b0; --line: #323a42; --rail: #20262c;
    --good: #5fcf9f; --bad: #ff8a80; --bad-paper: #3a1f1e; --good-paper: #16301f;
    --starting: #e8b23a; --ready: #35b487; --draining: #6cb6e8; --wedged: #dc7ab8; --failed: #ef5d60;
    --look: #8f9ba6; --spawn: #e8b23a; --bind: #5b9be0; --probe: #35b487; --publish: #dc7ab8; --other: #6e7780;
    --count: #5b9be0;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 68rem;
  background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere;
}
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0; }
h2 { font-size: 1.1rem; margin: 2.25rem 0 .5rem; padding-top: .75rem; border-top: 1px solid var(--line); }
h3 { font-size: .95rem; margin: 1rem 0 .25rem; }
p { margin: .25rem 0 .5rem; }
.soft, caption { color: var(--soft); }
.verdict { display: inline-block; margin: .75rem 0; padding: .3rem .7rem; border-radius: .3rem; font-weight: 600; }
.verdict.good { background: var(--good-paper); color: var(--good); }
.verdict.bad { background: var(--bad-paper); color: var(--bad); }
ul.summary { margin: .25rem 0; padding-left: 1.2rem; }
ul.summary .bad { color: var(--bad); }
dl.facts { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .75rem 0; }
dl.facts dt { color: var(--soft); }
dl.facts dd { margin: 0; }
code, pre, td.code { font-family: ui-monospace, monospace; font-size: .87em; }
pre { margin: .25rem 0; padding: .5rem; background: var(--rail); white-space: pre-wrap; }
table { width: 100%; border-collapse: collapse; font-size: .93em; }
th { text-align: left; font-weight: 600; color: var(--soft); border-bottom: 1px solid var(--line); }
th, td { padding: .3rem .8rem .3rem 0; vertical-align: top; }
tbody tr + tr td { border-top: 1px solid var(--line); }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.short { white-space: nowrap; }
details { margin: .5rem 0; }
summary { cursor: pointer; }
.grid-of { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 0 2rem; }
.legend { color: var(--soft); font-size: .87em; display: flex; flex-wrap: wrap; gap: .1rem 1rem; margin: .25rem 0 .5rem; }
.legend i { display: inline-block; width: .8em; height: .8em; margin-right: .35em; border-radius: 2px; }

svg.picture { display: block; overflow: hidden; font: 12px system-ui, sans-serif; }
svg text { fill: var(--ink); font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--line); }
svg .grid + text { fill: var(--soft); }
svg .unknown { fill: var(--line); fill-opacity: .5; }
svg .rail { fill: var(--rail); }
svg .end { stroke: var(--ink); stroke-width: 2; }
svg .failed { stroke: var(--failed); stroke-width: 1; }
svg .rate, svg .count { fill: var(--count); }
.starting { fill: var(--starting); background: var(--starting); }
.ready { fill: var(--ready); background: var(--ready); }
.draining { fill: var(--draining); background: var(--draining); }
.wedged { fill: var(--wedged); background: var(--wedged); }
.failed { fill: url(#hatch); background: repeating-linear-gradient(45deg, var(--failed) 0 2px, var(--paper) 2px 4px); }
.fault { fill: var(--failed); }
.refused, .fallback { fill: var(--failed); fill-opacity: .75; }
.replayed { fill: var(--wedged); fill-opacity: .75; }
.broker { fill: var(--look); }
.look { fill: var(--look); background: var(--look); }
.spawn { fill: var(--spawn); background: var(--spawn); }
.bind { fill: var(--bind); background: var(--bind); }
.probe { fill: var(--probe); background: var(--probe); }
.publish { fill: var(--publish); background: var(--publish); }
.other { fill: var(--other); background: var(--other); }
#hatch path { stroke: var(--failed); stroke-width: 2; }
.hidden { position: absolute; width: 0; height: 0; }

@media (max-width: 640px) {
  dl.facts { grid-template-columns: 1fr; gap: 0; }
  dl.facts dd { margin-bottom: .35rem; }
  table, tbody, tr, td { display: block; }
  thead { display: none; }
  tbody tr { padding: .4rem 0; border-bottom: 1px solid var(--line); }
  tbody tr + tr td { border-top: 0; }
  td { padding: 0; }
  td:empty { display: none; }
  td::before { content: attr(data-name) ": "; color: var(--soft); }
  .number { text-align: left; }
  .short { white-space: normal; }
}
@media print {
  details > * { display: block; }
  h2 { break-after: avoid; }
}
)css";

}  // namespace zcbroker::cli
