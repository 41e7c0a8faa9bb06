// The published oracle: is an expression a sub-expression of the target, by z3 and the published axioms.
//
// z3 is loaded while running, from a path that the caller knows: neither headers nor the library are needed to build.
// Every thread has a context of its own.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "oracle_expressions.hpp"
#include "program.hpp"

namespace tilesmith {

// What the axioms are about.
struct Theory {
    std::size_t inputs = 0, constants = 0;
    std::vector<std::string> functions;  // exp, sqrt and square have axioms; any other name only equals itself
    std::vector<std::int64_t> primes;    // that degrees are made of
};

// Adds the functions and constants of a program, whose functions have these names. The primes must be there.
void describe(Theory &theory, const std::vector<Function> &functions, const std::vector<std::string> &names);

// The published axioms in SMT-LIB: those of equality and those of `part`, which holds where the first is a
// sub-expression of the second. A sum is (red i1 .. in x): the exponents of its degree's primes, of which the published
// encoding has that of two alone.
std::string axioms(const Theory &theory);
// An expression in that language; empty where a degree has other primes: it can be part of no target.
std::string formula(const Theory &theory, const Expressions &expressions, Expression e);

// libz3, while anything uses it. Raises std::invalid_argument where it cannot be loaded.
class Z3 {
  public:
    explicit Z3(const std::string &path);
    ~Z3();
    Z3(const Z3 &) = delete;
    Z3 &operator=(const Z3 &) = delete;

    using Config = void *;
    using Context = void *;
    Config (*make_config)();
    void (*delete_config)(Config);
    Context (*make_context)(Config);
    void (*delete_context)(Context);
    void (*set_error_handler)(Context, void (*)(Context, int));
    const char *(*evaluate)(Context, const char *); // a script in SMT-LIB

  private:
    void *library_;
};

enum class Answer : std::uint8_t { no, yes, unknown };

// Whether formulas are part of any target.
class Z3Oracle {
  public:
    // `effort`: z3's resource limit of one query; 80000 as published.
    Z3Oracle(std::shared_ptr<const Z3> z3, const std::string &axioms, const std::vector<std::string> &targets,
             unsigned effort);
    ~Z3Oracle();
    Z3Oracle(const Z3Oracle &) = delete;
    Z3Oracle &operator=(const Z3Oracle &) = delete;

    // Raises std::runtime_error with z3's words for a formula that it does not understand.
    Answer ask(const std::string &formula);

  private:
    void begin();

    std::shared_ptr<const Z3> z3_;
    std::string beginning_; // of every context
    std::vector<std::string> targets_;
    Z3::Context context_ = nullptr;
};

} // namespace tilesmith
