// What the program bitfit does before its libraries are initialised.
#include <limits.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace {

void say(const char *text, size_t length) {
  // If stderr cannot be written, there is nowhere to report it.
  if (write(STDERR_FILENO, text, length) < 0) return;
}

// libtorch's MKL looks for its files from the working directory. If that directory was deleted, MKL
// ends the process with a misleading message about a missing library.
void check_working_directory() {
  char path[PATH_MAX];
  if (getcwd(path, sizeof path) || errno != ENOENT) return;
  const ssize_t length = readlink("/proc/self/cwd", path, sizeof path);
  const char before[] = "error: the working directory, ",
             after[] = ", is gone; change to another\n";
  say(before, sizeof before - 1);
  for (ssize_t i = 0; i < length; ++i) {
    // Replace control characters, which a terminal would interpret.
    if (static_cast<unsigned char>(path[i]) < ' ' || path[i] == 127) path[i] = '?';
  }
  say(path, length < 0 ? 0 : length);
  say(after, sizeof after - 1);
  _exit(2);
}

bool is_set(char **environment, const char *name) {
  const size_t length = strlen(name);
  for (char **entry = environment; *entry; ++entry)
    if (strncmp(*entry, name, length) == 0 && (*entry)[length] == '=') return true;
  return false;
}

// Executes a command that computes again, with a short spin count; src/bin/bitfit-train.rs says
// why. GNU's OpenMP reads its environment in its initialiser, so that main would be too late. A
// restart from main would also run libtorch's initialisers twice, which take most of a short call's
// time. oneDNN gets room for the code of all shapes of a server's batches.
void set_environment(int argc, char **argv, char **environment) {
  const auto computes = [](const char *command) {
    return strcmp(command, "train") == 0 || strcmp(command, "eval") == 0 ||
           strcmp(command, "predict") == 0 || strcmp(command, "serve") == 0 ||
           strcmp(command, "tune") == 0;
  };
  if (argc < 2 || !computes(argv[1])) return;
  if (is_set(environment, "GOMP_SPINCOUNT") || is_set(environment, "OMP_WAIT_POLICY")) return;
  size_t count = 0;
  while (environment[count]) ++count;
  auto **longer = static_cast<char **>(malloc((count + 3) * sizeof(char *)));
  if (!longer) return;
  // A server's thread spins through the pauses inside a batch, and sleeps between batches, so that
  // several servers of one machine do not stop one another.
  static char spinning[] = "GOMP_SPINCOUNT=30000", briefly[] = "GOMP_SPINCOUNT=3000";
  static char capacity[] = "ONEDNN_PRIMITIVE_CACHE_CAPACITY=4096";
  memcpy(longer, environment, count * sizeof(char *));
  longer[count++] = strcmp(argv[1], "serve") == 0 ? briefly : spinning;
  if (!is_set(environment, "ONEDNN_PRIMITIVE_CACHE_CAPACITY")) longer[count++] = capacity;
  longer[count] = nullptr;
  execve("/proc/self/exe", argv, longer);
  // Without /proc, this process computes with OpenMP's default.
  free(longer);
}

void start(int argc, char **argv, char **environment) {
  check_working_directory();
  set_environment(argc, argv, environment);
}

}  // namespace

// The loader calls functions of .preinit_array before the initialisers of any library.
__attribute__((section(".preinit_array"), used)) static void (*const first)(int, char **,
                                                                            char **) = start;
