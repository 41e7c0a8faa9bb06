#include "oracle_expressions.hpp"

namespace tilesmith {

std::string Expressions::text(Expression e) const {
    return text(e, [](std::uint32_t degree, const std::string &argument) {
        return "(sum " + std::to_string(degree) + " " + argument + ")";
    });
}

Expression Expressions::taken(const Expressions &other, Expression e) {
    if (e == kNoExpression) return e;
    const Expressed kind = other.kind(e);
    std::uint32_t a = other.a(e), b = other.b(e);
    const bool joins = kind == Expressed::add || kind == Expressed::sub || kind == Expressed::mul || kind == Expressed::div;
    if (joins) a = taken(other, a);
    if (joins || kind == Expressed::function || kind == Expressed::sum) b = taken(other, b);
    return make(kind, a, b);
}

} // namespace tilesmith
