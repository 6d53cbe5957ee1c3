// Whether the file at a path is the program that is to go on there: a keeper
// that gave itself or its broker up to something else could not go back.
#ifndef ZCBROKER_SERVICE_KEEPER_SUCCESSOR_CHECK_H_
#define ZCBROKER_SERVICE_KEEPER_SUCCESSOR_CHECK_H_

#include <sys/types.h>

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ipc/deadline.h"
#include "ipc/unique_fd.h"

namespace zcbroker::service {

// A child that was asked a question, and has 10 s to answer it. Never waits.
class SuccessorCheck {
 public:
  // Starts `program` with `question` as its one argument. What it says on its
  // standard output has to begin with `answer`, which only the right program
  // says. Errors: by errno, with the program.
  static absl::StatusOr<SuccessorCheck> Ask(std::string program,
                                            std::string question,
                                            std::string answer);

  // The caller reaps it.
  pid_t child() const { return child_; }
  const ipc::Deadline& deadline() const { return deadline_; }
  // It has not answered in time, or nobody wants to know any more.
  void Kill() const;
  // What came of it when it has ended with `wait_status`. kFailedPrecondition
  // where it did not exit with 0 and the answer.
  absl::Status Judge(int wait_status) const;

 private:
  SuccessorCheck(std::string program, std::string question, std::string answer)
      : program_(std::move(program)),
        question_(std::move(question)),
        answer_(std::move(answer)),
        deadline_(ipc::Deadline::After(absl::Seconds(10))) {}

  const std::string program_;
  const std::string question_;
  const std::string answer_;
  const ipc::Deadline deadline_;
  pid_t child_ = -1;
  // What it says stays in the pipe until it has ended.
  ipc::UniqueFd said_;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_KEEPER_SUCCESSOR_CHECK_H_
