// Times whole processes: from posix_spawn, which copies nothing of its parent,
// to the exit status.
//
// usage: processes turns SAMPLES NAME=CALL...
//          in blocks, in an order shuffled every time, as latency.cc says;
//          prints a line per counted sample: NAME MICROSECONDS
//        processes herd COUNT CALL
//          COUNT of that call at once; "{}" in its words and its output is a
//          number from 0 then. Prints a line: SECONDS FAILED
//
// CALL is a file of strings, each ended by a NUL: the directory to run in; the
// output, which is removed before and must be there afterwards; VARIABLE=VALUE
// for the whole environment; an empty one; the words.
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"

namespace zcbroker {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kBlock = 10;
constexpr int kWarmUp = 2;

struct Call {
  std::string name;
  std::string directory;
  std::string output;
  std::vector<std::string> environment;
  std::vector<std::string> words;
  std::vector<double> micros;
};

[[noreturn]] void Die(const std::string& what) {
  fprintf(stderr, "processes: %s\n", what.c_str());
  exit(1);
}

Call ReadCall(const std::string& name, const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(in)),
                         std::istreambuf_iterator<char>());
  std::vector<std::string> strings = absl::StrSplit(text, '\0');
  strings.pop_back();  // behind the last NUL
  const auto empty = std::find(strings.begin(), strings.end(), "");
  if (strings.size() < 4 || empty == strings.end()) {
    Die(absl::StrCat(path, " is no call"));
  }
  return Call{name,
              strings[0],
              absl::StrCat(strings[0], "/", strings[1]),
              {strings.begin() + 2, empty},
              {empty + 1, strings.end()},
              {}};
}

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (std::string& text : strings) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

// A call that is ready to be spawned, so that nothing but that is timed.
class Process {
 public:
  explicit Process(Call call)
      : call_(std::move(call)),
        words_(Pointers(call_.words)),
        environment_(Pointers(call_.environment)) {
    posix_spawn_file_actions_init(&actions_);
    posix_spawn_file_actions_addchdir_np(&actions_, call_.directory.c_str());
    posix_spawn_file_actions_addopen(&actions_, 0, "/dev/null", O_RDONLY, 0);
    for (const int fd : {1, 2}) {
      posix_spawn_file_actions_addopen(&actions_, fd, "/dev/null", O_WRONLY, 0);
    }
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process() { posix_spawn_file_actions_destroy(&actions_); }

  Call& call() { return call_; }
  void Clean() const { unlink(call_.output.c_str()); }
  bool Wrote() const { return access(call_.output.c_str(), R_OK) == 0; }

  void Start() {
    if (posix_spawn(&pid_, words_[0], &actions_, nullptr, words_.data(),
                    environment_.data()) != 0) {
      Die(absl::StrCat("cannot run ", call_.words[0]));
    }
  }
  bool Succeeds() const {
    int status = 0;
    return waitpid(pid_, &status, 0) == pid_ && status == 0;
  }

 private:
  Call call_;
  std::vector<char*> words_;
  std::vector<char*> environment_;
  posix_spawn_file_actions_t actions_;
  pid_t pid_ = 0;
};

double Sample(Process& process) {
  process.Clean();
  const auto start = Clock::now();
  process.Start();
  const bool succeeds = process.Succeeds();
  const std::chrono::duration<double, std::micro> took = Clock::now() - start;
  if (!succeeds || !process.Wrote()) {
    Die(absl::StrCat(process.call().name, " failed"));
  }
  return took.count();
}

void Turns(std::vector<Process*> processes, int samples) {
  std::mt19937 random(20261123);
  for (int counted = 0; counted < samples; counted += kBlock) {
    std::shuffle(processes.begin(), processes.end(), random);
    for (Process* process : processes) {
      for (int i = 0; i < kWarmUp; ++i) Sample(*process);
      for (int i = 0; i < kBlock; ++i) {
        process->call().micros.push_back(Sample(*process));
      }
    }
  }
  for (Process* process : processes) {
    for (const double micros : process->call().micros) {
      printf("%s %.1f\n", process->call().name.c_str(), micros);
    }
  }
}

void Herd(const Call& pattern, int count) {
  std::vector<std::unique_ptr<Process>> herd;
  for (int i = 0; i < count; ++i) {
    const std::string number = absl::StrCat(i);
    Call call = pattern;
    absl::StrReplaceAll({{"{}", number}}, &call.output);
    for (std::string& word : call.words) {
      absl::StrReplaceAll({{"{}", number}}, &word);
    }
    herd.push_back(std::make_unique<Process>(std::move(call)));
    herd.back()->Clean();
  }
  int failed = 0;
  const auto start = Clock::now();
  for (const auto& process : herd) process->Start();
  for (const auto& process : herd) {
    if (!process->Succeeds() || !process->Wrote()) ++failed;
  }
  const std::chrono::duration<double> took = Clock::now() - start;
  printf("%.6f %d\n", took.count(), failed);
}

int Main(int argc, char** argv) {
  const std::string mode = argc > 3 ? argv[1] : "";
  if (mode == "herd" && argc == 4) {
    Herd(ReadCall("herd", argv[3]), atoi(argv[2]));
    return 0;
  }
  if (mode != "turns") {
    Die("usage: processes turns SAMPLES NAME=CALL... | herd COUNT CALL");
  }
  std::vector<std::unique_ptr<Process>> processes;
  std::vector<Process*> order;
  for (int i = 3; i < argc; ++i) {
    const std::pair<std::string, std::string> named =
        absl::StrSplit(argv[i], absl::MaxSplits('=', 1));
    processes.push_back(
        std::make_unique<Process>(ReadCall(named.first, named.second)));
    order.push_back(processes.back().get());
  }
  Turns(std::move(order), atoi(argv[2]));
  return 0;
}

}  // namespace
}  // namespace zcbroker

int main(int argc, char** argv) { return zcbroker::Main(argc, argv); }
