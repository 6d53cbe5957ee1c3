"""Plants bugs into a copy of the rules, for planted_test alone: the product's
source knows nothing of them. Each is a text of machine.cc, which has to occur
exactly once, and what stands there when the bug is switched on at run time. A
change of the rules that moves such a text fails the build; move it here, too.

usage: plant.py MACHINE_CC OUT_CC OUT_H
"""

import sys

# name, what it breaks: text, text with the bug.
BUGS = {
    # A start's waiters stay in its list and are answered by its end, too.
    "AnswersTwice": (
        "for (const NegotiationId waiter : std::exchange(slot->waiters, {})) {",
        "for (const NegotiationId waiter : Planted(\"AnswersTwice\")"
        " ? slot->waiters : std::exchange(slot->waiters, {})) {"),
    "AnswersLate": (
        "return std::min(latest, std::max(now, *deadline + -limits_.answer_margin));",
        "if (Planted(\"AnswersLate\")) return latest;\n"
        "return std::min(latest, std::max(now, *deadline + -limits_.answer_margin));"),
    "AnswersWhoLeft": (
        "  if (found->second.key.has_value()) {\n    auto& waiters",
        "  if (found->second.key.has_value() && !Planted(\"AnswersWhoLeft\")) {\n"
        "    auto& waiters"),
    "RoutesToTheDying": (
        "  slot.state = State::kEnding;\n  slot.since = now;\n"
        "  slot.look_at = absl::nullopt;\n  slot.wedged = std::move(wedged);",
        "  if (!Planted(\"RoutesToTheDying\")) slot.state = State::kEnding;\n"
        "  slot.since = now;\n"
        "  slot.look_at = absl::nullopt;\n  slot.wedged = std::move(wedged);"),
    "SuccessorBesideTheDraining": (
        "  if (slot.state != State::kGone || slot.expected) {\n    if (slot.waiters",
        "  if ((slot.state != State::kGone &&\n"
        "       !(Planted(\"SuccessorBesideTheDraining\") &&\n"
        "         slot.state == State::kDraining)) ||\n"
        "      slot.expected) {\n    if (slot.waiters"),
    "SuccessorBesideTheEnding": (
        "  const Key key{request.service(), version->version};\n"
        "  Slot& slot = slots_[key];",
        "  const Key key{request.service(), version->version};\n"
        "  Slot& slot = slots_[key];\n"
        "  if (Planted(\"SuccessorBesideTheEnding\") &&\n"
        "      slot.state == State::kEnding) slot.state = State::kGone;"),
    "StopsWithWorkInFlight": (
        "    if (!seen.any()) {\n      End(",
        "    if (!seen.any() || Planted(\"StopsWithWorkInFlight\")) {\n      End("),
    "IdlesOutWhatWasUsed": (
        "    slot.in_flight = seen;\n    if (seen.any()",
        "    slot.in_flight = seen;\n"
        "    if (Planted(\"IdlesOutWhatWasUsed\")) seen.used = false;\n"
        "    if (seen.any()"),
    # The simulation found this one by itself, when it was none of this list.
    "IdlesOutWhatWasUsedUntilNow": (
        "    const bool was_busy =",
        "    const bool was_busy =\n"
        "        !Planted(\"IdlesOutWhatWasUsedUntilNow\") &&"),
    "IdlesOutThePinned": (
        "policy.pinned.count(key) > 0) {",
        "(policy.pinned.count(key) > 0 && !Planted(\"IdlesOutThePinned\"))) {"),
    "EndsStrangers": (
        "  if (slot.backend.foreign) return \"\";",
        "  if (slot.backend.foreign && !Planted(\"EndsStrangers\")) return \"\";"),
    "NeverLooksAgain": (
        "    slot.in_flight = std::move(seen);\n"
        "    slot.look_pause = std::min(slot.look_pause * 2, limits_.longest_look);\n"
        "    slot.look_at = now + slot.look_pause;",
        "    slot.in_flight = std::move(seen);\n"
        "    slot.look_pause = std::min(slot.look_pause * 2, limits_.longest_look);\n"
        "    if (!Planted(\"NeverLooksAgain\")) slot.look_at = now + slot.look_pause;"),
    "ForgetsTheTimerOfLooks": (
        "    if (slot.look_at.has_value()) at(*slot.look_at);",
        "    if (slot.look_at.has_value() && !Planted(\"ForgetsTheTimerOfLooks\"))\n"
        "      at(*slot.look_at);"),
    "LooksAllTheTime": (
        "    slot.look_at = std::max(now, slot.used_at + limit);",
        "    slot.look_at = std::max(now, slot.used_at +\n"
        "        (Planted(\"LooksAllTheTime\") ? absl::Seconds(1) : limit));"),
    "BacksOffForEver": (
        "  if (slot.state == State::kBackoff && now >= slot.retry_at) {",
        "  if (slot.state == State::kBackoff && now >= slot.retry_at &&\n"
        "      !Planted(\"BacksOffForEver\")) {"),
    "BrokenWithoutEvidence": (
        "  facts.evidence = slot.last_failure.evidence;",
        "  if (!Planted(\"BrokenWithoutEvidence\"))\n"
        "    facts.evidence = slot.last_failure.evidence;"),
    "KeepsTheReplaced": (
        "      installed->binary_identity != slot.version.binary_identity) {\n"
        "    return \"binary replaced\";",
        "      installed->binary_identity != slot.version.binary_identity &&\n"
        "      !Planted(\"KeepsTheReplaced\")) {\n"
        "    return \"binary replaced\";"),
    "StartsTheBlocked": (
        "  if (IsBlocked({name, wanted})) {",
        "  if (IsBlocked({name, wanted}) && !Planted(\"StartsTheBlocked\")) {"),
    # This one was there before the simulation was.
    "RoutesToWhatIsShutDown": (
        "  shutting_down_ = true;\n  effects->push_back(RoutesChanged{});",
        "  shutting_down_ = true;\n"
        "  if (!Planted(\"RoutesToWhatIsShutDown\"))\n"
        "    effects->push_back(RoutesChanged{});"),
    "AdoptsTheLeaving": (
        "  if (!leaving.has_value()) return;",
        "  if (!leaving.has_value() || Planted(\"AdoptsTheLeaving\")) return;"),
    "TellsNoSuccessorWhatLeaves": (
        "  effects->push_back(NoteLeaving{slot.start, slot.leaving});",
        "  if (!Planted(\"TellsNoSuccessorWhatLeaves\"))\n"
        "    effects->push_back(NoteLeaving{slot.start, slot.leaving});"),
    "ForgetsWhoWantsAnEnd": (
        "  AnswerRetirers(slot, absl::nullopt, effects);\n"
        "  // Who asked while",
        "  if (Planted(\"ForgetsWhoWantsAnEnd\")) slot.retirers.clear();\n"
        "  if (Planted(\"ForgetsWhoWantsAnEnd\")) retire_deadlines_.clear();\n"
        "  AnswerRetirers(slot, absl::nullopt, effects);\n"
        "  // Who asked while"),
    "StartsBesideTheAwaited": (
        "  slot.expected = slot.state == State::kGone;",
        "  slot.expected = slot.state == State::kGone &&\n"
        "                  !Planted(\"StartsBesideTheAwaited\");"),
    "AwaitsForEver": (
        "  if (!std::exchange(slot.expected, false)) return;",
        "  if (Planted(\"AwaitsForEver\")) return;\n"
        "  if (!std::exchange(slot.expected, false)) return;"),
    "RoutesToWhoGaveUp": (
        "  BackendEnding(id, {}, now, effects);\n  return true;",
        "  if (!Planted(\"RoutesToWhoGaveUp\")) BackendEnding(id, {}, now, effects);\n"
        "  return true;"),
    "LeavesTheSlotToWhoGaveUp": (
        "  slot.leaving = \"its lease ended\";\n  Ended(slot, {}, now, effects);",
        "  slot.leaving = \"its lease ended\";\n"
        "  if (!Planted(\"LeavesTheSlotToWhoGaveUp\")) Ended(slot, {}, now, effects);"),
    "RegistersOverWhatRuns": (
        "  Slot& slot = slots_[key];\n  switch (slot.state) {\n    case State::kStarting:",
        "  Slot& slot = slots_[key];\n"
        "  if (Planted(\"RegistersOverWhatRuns\") && slot.state == State::kReady) {\n"
        "    slot.state = State::kGone;\n"
        "  }\n"
        "  switch (slot.state) {\n    case State::kStarting:"),
}

HEADER = """// Made by plant.py.
#ifndef ZCBROKER_TESTS_SIMULATION_PLANTED_BUGS_H_
#define ZCBROKER_TESTS_SIMULATION_PLANTED_BUGS_H_

namespace zcbroker::simulation {
constexpr const char* kPlantedBugs[] = {%s};
}  // namespace zcbroker::simulation

#endif  // ZCBROKER_TESTS_SIMULATION_PLANTED_BUGS_H_
"""

DECLARATION = """
namespace zcbroker::simulation {
bool Planted(const char* name);
}
"""


def main(source, out, header):
    with open(source) as file:
        text = file.read()
    for name, (before, after) in BUGS.items():
        if text.count(before) != 1:
            sys.exit(f"plant.py: {name}: its text occurs {text.count(before)}"
                     f" times in {source}, not once:\n{before}")
        text = text.replace(before, after)
    text = text.replace("Planted(\"", "simulation::Planted(\"")
    include = '#include "service/core/machine.h"\n'
    text = text.replace(include, include + DECLARATION, 1)
    with open(out, "w") as file:
        file.write(text)
    with open(header, "w") as file:
        file.write(HEADER % ", ".join(f'"{name}"' for name in BUGS))


if __name__ == "__main__":
    main(*sys.argv[1:])
