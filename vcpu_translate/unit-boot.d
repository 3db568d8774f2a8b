vcpu_translate/unit-boot.o: grader/units/boot.c common/contract/lab6.h \
  common/contract/boot_info.h common/contract/lab5.h \
  common/contract/lab4.h common/contract/lab3.h common/contract/lab2.h \
  common/contract/lab1.h common/contract/given.h common/contract/vmm.h \
  common/contract/abi.h common/contract/x86.h grader/units/unit.h

common/contract/lab6.h:

common/contract/boot_info.h:

common/contract/lab5.h:

common/contract/lab4.h:

common/contract/lab3.h:

common/contract/lab2.h:

common/contract/lab1.h:

common/contract/given.h:

common/contract/vmm.h:

common/contract/abi.h:

common/contract/x86.h:

grader/units/unit.h:
