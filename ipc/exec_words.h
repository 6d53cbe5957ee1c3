#ifndef ZCBROKER_IPC_EXEC_WORDS_H_
#define ZCBROKER_IPC_EXEC_WORDS_H_

#include <string>
#include <vector>

namespace zcbroker::ipc {

// `words` as exec(3) and posix_spawn(3) take an argv or an environment: a null
// pointer at the end. They point into `words`, which must outlive them
// unchanged; neither function writes there.
inline std::vector<char*> ExecWords(const std::vector<std::string>& words) {
  std::vector<char*> pointers;
  pointers.reserve(words.size() + 1);
  for (const std::string& word : words) {
    pointers.push_back(const_cast<char*>(word.c_str()));
  }
  pointers.push_back(nullptr);
  return pointers;
}

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_EXEC_WORDS_H_
