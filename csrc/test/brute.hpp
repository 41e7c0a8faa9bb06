// Block graphs by brute force: every way to put the operators of one kernel together, tried on random residues. No class,
// no table, no order: what the block search is compared with. The rules are those of tests/null/superopt/brute.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <string>

#include "../program.hpp"

namespace tilesmith::test {

struct BruteLimits {
    int operators = 9; // loads and steps
    std::size_t bytes = std::size_t{2} << 30;
    double seconds = 600;
};

struct Brute {
    std::set<std::string> graphs; // the loop's base, and what is stored
    std::uint64_t states = 0; // sets of steps that were looked at
    std::uint64_t values = 0; // that were kept
    std::size_t bytes = 0;
    bool complete = true; // no limit but that of operators ended it
};

// Every block graph of a program with named dimensions and one output that loads every input and stores what the program
// computes. Bases whose parts have a loop's may be looped over. Raises std::invalid_argument for another program.
Brute brute(const Program &program, const BruteLimits &limits);

// How graphs are written: what brute force finds and what the block search finds compare as strings.
std::string written_input(int input);
std::string written_apply(int function, const std::string &x);
std::string written_sum(bool over_loop, Bases over, const std::string &x);
std::string written_pair(Term term, Bases over, std::string x, std::string y);
std::string written_graph(Base loop, const std::string &stored);

} // namespace tilesmith::test
