// gRPC's callback server hands a call from thread to thread by mutexes inside
// the packaged libgrpc++, which is not instrumented: ThreadSanitizer sees the
// half of each access that headers compile into our objects, and no order
// between them. Linked into what runs such a server; ThreadSanitizer's runtime
// alone calls it. Our own state is touched outside these frames and stays
// watched.
// The runtime names this function, not we.
// NOLINTBEGIN(bugprone-reserved-identifier)
extern "C" const char* __tsan_default_suppressions();

extern "C" const char* __tsan_default_suppressions() {
  return "race:grpc::internal::CallbackUnaryHandler\n"
         "race:grpc::internal::CallbackServerStreamingHandler\n"
         "race:grpc::internal::CallbackBidiHandler\n"
         "race:grpc::ServerUnaryReactor\n"
         "race:grpc::Server::CallbackRequest\n"
         "race:grpc::internal::CallbackWithSuccessTag\n";
}
// NOLINTEND(bugprone-reserved-identifier)
