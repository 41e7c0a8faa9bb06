// Expressions under the published abstraction, each kept once and known by its number, for oracles that read them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "hash.hpp"

namespace tilesmith {

enum class Expressed : std::uint32_t { input, constant, add, sub, mul, div, function, sum };

using Expression = std::uint32_t;
inline constexpr Expression kNoExpression = ~Expression{0};

class Expressions {
  public:
    // The names of functions, by number.
    explicit Expressions(std::vector<std::string> functions) : functions_(std::move(functions)) {}

    // `a` and `b`: of an input or a constant its number and 0; of a function its number and the argument; of a sum its
    // degree and the argument; of the others the operands.
    Expression make(Expressed kind, std::uint32_t a, std::uint32_t b = 0) {
        const std::uint32_t row[] = {static_cast<std::uint32_t>(kind), a, b};
        return rows_.intern(row);
    }
    // A sum of degree 1 is its argument.
    Expression sum(std::int64_t degree, Expression e) {
        return degree == 1 ? e : make(Expressed::sum, static_cast<std::uint32_t>(degree), e);
    }

    // The same expression as another has it, whose functions are the same.
    Expression taken(const Expressions &other, Expression e);

    Expressed kind(Expression e) const { return static_cast<Expressed>(rows_[e][0]); }
    std::uint32_t a(Expression e) const { return rows_[e][1]; }
    std::uint32_t b(Expression e) const { return rows_[e][2]; }
    std::size_t size() const { return rows_.size(); }

    // As an s-expression: (add v0 (exp (sum 16 (mul v0 v1)))).
    std::string text(Expression e) const;
    // The same with sums as `sum` writes them, given the degree and the argument's text.
    template <typename Sum> std::string text(Expression e, const Sum &sum) const;

  private:
    std::vector<std::string> functions_;
    Rows rows_;
};

template <typename Sum> std::string Expressions::text(Expression e, const Sum &sum) const {
    static constexpr const char *kNames[] = {"v", "c", "add", "sub", "mul", "div"};
    switch (kind(e)) {
    case Expressed::input:
    case Expressed::constant: return kNames[static_cast<std::size_t>(kind(e))] + std::to_string(a(e));
    case Expressed::function: return "(" + functions_[a(e)] + " " + text(b(e), sum) + ")";
    case Expressed::sum: return sum(a(e), text(b(e), sum));
    default:
        return std::string("(") + kNames[static_cast<std::size_t>(kind(e))] + " " + text(a(e), sum) + " " + text(b(e), sum) + ")";
    }
}

} // namespace tilesmith
