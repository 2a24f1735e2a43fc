#include "tools/program.h"
#include "tools/signals.h"

int main(int argc, char** argv) {
  moraine::tools::install_signal_handlers();
  moraine::tools::Console console;
  return moraine::tools::run_program(argc, argv, console);
}
