// zcb writes by write(), so the standard streams need not be made. Every file
// that includes <iostream> makes them before main, those of the libraries
// included: 0.03 ms of a process whose whole hit takes 0.6 (docs/adr/0013).
// String streams do without them; std::cout and its like may not be used.
//
// Linked into the static release only, as quick_start_glibc.cc is. It takes the
// place of libstdc++'s ios_init.o, whole.
#include <ios>

namespace std {

ios_base::Init::Init() {}
ios_base::Init::~Init() {}

}  // namespace std
