// The rules of the broker (service/core/machine) in a world of fake processes
// and a fake clock. A history is a list of things that happen; after each of
// them all that must always hold is checked, and at its end, when nothing fails
// any more, that what is wanted gets there. docs/adr/0018-simulation.md.
//
// An event holds numbers, not names: which process it concerns is found by
// taking the number modulo what there is, so that any part of a history is a
// history, too, and a failing one can be shrunk.
#ifndef ZCBROKER_TESTS_SIMULATION_SIMULATION_H_
#define ZCBROKER_TESTS_SIMULATION_SIMULATION_H_

#include <cstdint>
#include <string>
#include <vector>

namespace zcbroker::simulation {

enum class Kind {
  kAsk,      // a client negotiates
  kGiveUp,   // and goes away
  kProceed,  // a process does what it is expected to do next
  kFail,     // a start fails; what is examined turns out to be wedged
  kDie,      // a process ends, its group lives on for a while
  kKill,     // both end
  kUse,      // connections and children of a process come and go
  kReport,   // a client saw a process fail
  kStart,    // somebody wants a backend started, stopped, drained
  kStop,
  kDrain,
  kReplace,   // a binary is rebuilt
  kSpoil,     // a binary does not start any more, until it is rebuilt
  kRedefine,  // the definition changes
  kInstall,   // a version is installed or removed
  kPolicy,    // versions are pinned, blocked, kept
  kCatalog,   // the broker reads all of that
  kUnlink,    // somebody removes the socket of a process
  kRegister,  // a backend that started itself wants a lease
  kRelease,   // and gives it up
  kRestart,   // the broker dies or hands over; the next one has the journals
  kShutdown,
};

struct Event {
  Kind kind = Kind::kAsk;
  // Passes before it happens.
  uint32_t pause_ms = 0;
  uint32_t a = 0;
  uint32_t b = 0;
};

struct History {
  // Of the machine's own randomness.
  uint64_t seed = 0;
  std::vector<Event> events;
};

// The same for the same seed, on every machine.
History MakeHistory(uint64_t seed);

// What did not hold; empty: everything did. `steps`, where given, is what
// happened, a line each.
std::string Violation(const History& history,
                      std::vector<std::string>* steps = nullptr);

// A shorter history that fails, too, if there is one: none of its events can be
// left out.
History Shrink(History failing);

// Seed, violation, and the steps of the shrunken history, for people.
std::string Explain(const History& failing);

}  // namespace zcbroker::simulation

#endif  // ZCBROKER_TESTS_SIMULATION_SIMULATION_H_
