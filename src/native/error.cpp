// The calling thread's last error.
#include "common.h"

namespace bitfit {
thread_local std::string last_error;
}

const char *bitfit_last_error() { return bitfit::last_error.c_str(); }
