#include "oracle_expressions.hpp"

namespace tilesmith {

std::string Expressions::text(Expression e) const {
    return text(e, [](std::uint32_t degree, const std::string &argument) {
        return "(sum " + std::to_string(degree) + " " + argument + ")";
    });
}

} // namespace tilesmith
