// What Python sees of the search. No other file here knows Python.

#include <nanobind/nanobind.h>

NB_MODULE(_core, module) { module.doc() = "The search engine of the symbolic space, in C++."; }
