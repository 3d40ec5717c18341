"""From counted seconds to cents: the rules, the settlement, the books and the report."""
