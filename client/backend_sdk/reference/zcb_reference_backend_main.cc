// zcb-reference-backend.
#include "client/backend_sdk/reference/program.h"

int main(int argc, char** argv) {
  return zcbroker::client::RunReferenceBackend(argc, argv, nullptr);
}
