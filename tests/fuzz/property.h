// What a fuzz target promises beyond not crashing.
#ifndef ZCBROKER_TESTS_FUZZ_PROPERTY_H_
#define ZCBROKER_TESTS_FUZZ_PROPERTY_H_

#include <cstdio>
#include <cstdlib>

// Ends the run, so that libFuzzer keeps the input, where `condition` fails.
#define ZCB_PROPERTY(condition)                                         \
  do {                                                                  \
    if (!(condition)) {                                                 \
      std::fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, \
                   #condition);                                         \
      std::abort();                                                     \
    }                                                                   \
  } while (false)

#endif  // ZCBROKER_TESTS_FUZZ_PROPERTY_H_
